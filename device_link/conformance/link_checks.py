"""Checks of the link and of plain registers."""

from __future__ import annotations

import random
from itertools import pairwise

from ..operations import Read, ReadList, Write, WriteList
from ..registers import MAGIC
from ..transport import Capability
from ..window import Window
from .bench import Bench

UNMAPPED = 0x200  # between the ID block and the link block
_WINDOW_CYCLES = 20_000  # a serial line is slower than that: then most are skipped, and must be told


def identity(bench: Bench) -> None:
    """The device tells magic, register map and a configuration that can exist, the same each time."""
    device = bench.device
    bench.equal(int(device.id.magic.read()), MAGIC, "id.magic")
    bench.equal(int(device.id.map_hash.read()), device.map.hash, "id.map_hash")
    first, second = (device.read(device.id.all()) for _ in range(2))
    moving = {"id.cycle_lo", "id.cycle_hi"}
    for handle, before, after in zip(device.id.all(), first, second, strict=True):
        if handle.name not in moving:
            bench.equal(int(after), int(before), f"{handle.name}, read again,")
    if device.transport.boot_nonce is not None:
        bench.equal(bench.identity.boot_nonce, device.transport.boot_nonce, "the boot nonce of the ID block")


def device_time(bench: Bench) -> None:
    """The cycle counter goes on, in 64 bits, and never back."""
    before = bench.device.cycle()
    bench.pass_time(1000)
    bench.expect(bench.device.cycle() >= before + 1000, "the cycle counter does not go on")


def scratch(bench: Bench) -> None:
    """Every byte and every bit of a register holds what was written to it alone."""
    register = bench.device.id.scratch
    with bench.restored([register]):
        lanes = [0xFF << 8 * lane for lane in range(4)]
        patterns = [0, 0xFFFF_FFFF, *lanes, *(0xFFFF_FFFF ^ lane for lane in lanes), *(1 << bit for bit in range(32)),
                    0x0123_4567, 0x5555_5555, 0xAAAA_AAAA]
        operations = [one for word in patterns for one in (Write(register.address, (word,)), Read(register.address))]
        words = [result[0] for result in bench.device.transport.execute(operations) if result]
        for word, got in zip(patterns, words, strict=True):
            bench.equal(got, word, "id.scratch")


def read_only(bench: Bench) -> None:
    """A register that software cannot write refuses, and keeps its value."""
    magic = bench.device.id.magic
    bench.refused(lambda: bench.device.transport.write_many([(magic.address, 0)]), "a write to id.magic")
    bench.equal(int(magic.read()), MAGIC, "id.magic")


def unmapped(bench: Bench) -> None:
    """An address without a register is refused, read or written, and nothing changes."""
    before = bench.writable_state()
    transport = bench.device.transport
    for address in (UNMAPPED, 0x0_A000, 0x3_FFFC):
        bench.refused(lambda address=address: transport.read(address), f"a read at {address:#x}")  # type: ignore[misc]
        bench.refused(lambda address=address: transport.write_many([(address, 0xFFFF_FFFF)]),  # type: ignore[misc]
                      f"a write at {address:#x}")
    bench.equal(bench.writable_state(), before, "the device's state after refused accesses")


def absent_rows(bench: Bench) -> None:
    """Rows of the map that this device does not have are refused."""
    device, config = bench.device, bench.identity.config
    for name, count in (("guarantee", config.tenants), ("active", config.tenants), ("snapshot", config.tenants),
                        ("detail", config.tenants),
                        ("region", 8 * config.tenants if device.has("region") else 0),
                        ("queue", config.tenants if device.has("queue") else 0),
                        ("port", config.ports), ("slot", config.slots), ("classifier", config.classifier_entries)):
        room = device.map.block(name).count or 0
        if count < room:
            register = device.map.block(name).registers(count)[0]
            bench.refused(lambda: device.read([register.name]), f"reading {register.name}")  # noqa: B023


def lists(bench: Bench) -> None:
    """A list is carried out in order, and stops at the first operation that fails."""
    transport, scratch = bench.device.transport, bench.device.id.scratch
    address, magic = scratch.address, bench.device.id.magic.address
    with bench.restored([scratch]):
        results = transport.execute([
            Write(address, (1,)), Read(address), WriteList(((address, 2), (address, 3))),
            ReadList((address, magic, address)), Write(address, (4,)), Read(magic, 2)])
        bench.equal(results, [[], [1], [], [3, MAGIC, 3], [], [MAGIC, bench.device.map.hash]], "the list's result")
        bench.refused(lambda: transport.execute([Write(address, (5,)), Read(UNMAPPED), Write(address, (6,))]),
                      "a list with an address without register")
        bench.equal(transport.read(address), [5], "id.scratch after a list that failed")


def long_lists(bench: Bench) -> None:
    """More than one request's worth of scattered reads and writes, several in flight."""
    device, tenants = bench.device, bench.identity.config.tenants
    rng = random.Random(1)
    handles = [device.objective[tenant].slo for tenant in range(tenants)]
    with bench.restored(handles):
        for _ in range(3):
            values = {handle.address: rng.getrandbits(32) for handle in handles}
            pairs = [(address, 0) for address in values for _ in range(8)] + list(values.items())
            device.transport.write_many(pairs)
            addresses = [rng.choice(list(values)) for _ in range(600)]
            got = device.transport.read_many(addresses)
            bench.equal(got, [values[address] for address in addresses], "what was read of objective[].slo")


def windows(bench: Bench) -> None:
    """Window snapshots arrive, numbered without a gap but for those told as skipped."""
    bench.skip_unless(Capability.WINDOWS)
    device = bench.device
    switches = [device.register(name) for name in device.transport.window_switches]
    cycles, found = _WINDOW_CYCLES, list[Window]()
    with bench.restored([device.analyzer.window, *switches]):
        device.windows()  # those of before
        device.write([(device.analyzer.window, cycles), *((switch, {"push": 1}) for switch in switches)])
        while len(found) < 4:
            bench.in_time("the arrival of four windows")
            bench.pass_time(cycles if Capability.TIME_GRANTS in device.capabilities else 1000)
            # The first ones may have begun before the length was changed.
            found += [window for window in device.windows(0.1) if found or window.cycles == cycles]
    for window in found:
        bench.equal(len(window.rows), bench.identity.config.tenants, "rows of a window")
        bench.equal(window.cycles, cycles, f"cycles of window {window.number}")
    for before, after in pairwise(found):
        missing = (after.number - before.number - 1) & 0xFFFF_FFFF
        bench.expect(missing == 0 or after.skipped > before.skipped,
                     f"windows {before.number + 1} to {after.number - 1} are missing and not told as skipped")
        bench.equal(after.start - before.start, (missing + 1) * cycles, "distance between the starts of two windows")
