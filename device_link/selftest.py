"""Self-test of a device in use: is it well, rather than is it right (that is `conformance`).

Seconds, not minutes; nothing is written but the scratch register, the traffic generator and, over PCIe, the `dma` block
and a row of the memory table that nobody uses, and all of it is put back. What only looks wrong (a slow line, packets
cut off since reset) is a warning.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from morphnic.errors import InputError

from .conformance import Check, Report, Result, link_checks, run_on, traffic_checks
from .conformance.bench import Bench, CheckFailed, CheckSkipped, CheckWarned
from .device import BlockHandle, Device, RegisterHandle
from .pcie.function import PAGE_BYTES, HostMemory
from .transport import Capability

_EXCHANGES = 20
_SLOW_EXCHANGE = 0.005  # seconds; an FTDI chip as delivered holds short answers back for 16 ms
_CLOCK_SECONDS = 0.25
_CLOCK_TOLERANCE = 0.02
_IDLE, _AWAITING = 0, 3  # of rm.status.state
_READ, _WRITE = 1, 2  # dma.command
_DONE, _NO_REGION = 0, 1  # of dma.status.outcome
_GUEST = 1 << 62  # a guest address beyond those of any guest
_GRANTED = 2 * PAGE_BYTES
_REGIONS = 8  # of a tenant
_ENDED = 3  # the interrupt vector of the end of a transfer
INTERRUPT_SECONDS = 5.0  # in which one that comes at all has come


def link(bench: Bench) -> None:
    """Short exchanges are answered soon, and none is damaged on the way."""
    device = bench.device
    counters = [device.link.crc_errors, device.link.framing_errors, device.link.repeats]
    before = [int(value) for value in device.read(counters)]
    seconds = []
    for _ in range(_EXCHANGES):
        started = time.monotonic()
        device.id.magic.read()
        seconds.append(time.monotonic() - started)
    damaged = [(handle.name, int(value) - old & 0xFFFF_FFFF)
               for handle, value, old in zip(counters, device.read(counters), before, strict=True)]
    if any(count for _, count in damaged):
        raise CheckWarned("the line damages frames: " + ", ".join(f"{name} rose by {count}" for name, count in damaged)
                          + "; check cable, ground and baud rate")
    middle = statistics.median(seconds)
    if middle > _SLOW_EXCHANGE:
        raise CheckWarned(f"an exchange takes {1000 * middle:.1f} ms: `morphnic doctor` tells whether the latency "
                          "timer of a serial adapter is the reason")


def clock(bench: Bench) -> None:
    """Device time passes at the rate that the device tells."""
    device = bench.device
    if Capability.TIME_GRANTS in device.capabilities:
        raise CheckSkipped("time passes only when it is granted")
    # The counter was read somewhere between the two times: this computer may have been busy with something else.
    begin = time.monotonic()
    first = device.cycle()
    begun = time.monotonic()
    time.sleep(_CLOCK_SECONDS)
    end = time.monotonic()
    last = device.cycle()
    ended = time.monotonic()
    if last == first:
        raise CheckFailed("the cycle counter stands still")
    slowest, fastest = (last - first) / (ended - begin), (last - first) / (end - begun)
    told = bench.identity.clock_hz
    if not slowest * (1 - _CLOCK_TOLERANCE) <= told <= fastest * (1 + _CLOCK_TOLERANCE):
        measured = (slowest + fastest) / 2e6
        raise CheckWarned(f"the counter runs at {measured:.3g} MHz, id.clock tells {told / 1e6:g} MHz: on a board "
                          "the clock is wrong; a simulated device runs as fast as it can")


def scratch(bench: Bench) -> None:
    """Every bit of a register holds what is written to it."""
    bench.skip_unless_writer()
    link_checks.scratch(bench)


def allocation(bench: Bench) -> None:
    """The table in force is within what there is, and no transaction hangs."""
    device, config = bench.device, bench.identity.config
    rm = device.rm
    state, left = device.read([rm.status, rm.confirm_left])
    capacity = int(rm.weight_capacity.read())
    rows = [device.active[tenant].weight for tenant in range(config.tenants)]
    weights = [value.weight for value in device.read(rows)]
    if sum(weights) > capacity:
        raise CheckFailed(f"the weights in force add up to {sum(weights)}, over rm.weight_capacity {capacity}")
    if not any(weights):
        raise CheckFailed("no tenant has any weight: nothing can pass the fabric")
    if state.state == _AWAITING:
        raise CheckWarned(f"a commit awaits its confirmation for {int(left)} more cycles; then it is rolled back")
    if state.state != _IDLE:
        raise CheckWarned(f"a transaction is open (rm.status.state {state.state}): a manager is at work, or stopped "
                          "in it")


def windows(bench: Bench) -> None:
    """The workload analyzer ends windows."""
    device = bench.device
    length = int(device.analyzer.window.read())
    if not length:
        raise CheckSkipped("analyzer.window is 0: the analyzer is off")
    before = int(device.analyzer.sequence.read())
    bench.until(lambda: int(device.analyzer.sequence.read()) != before, f"the end of a window of {length} cycles",
                step=max(length, 256))


def traffic(bench: Bench) -> None:
    """Packets of the device's own generator come back whole, in order, all of them."""
    bench.skip_unless_writer()
    traffic_checks.generator_loop(bench)


def slots(bench: Bench) -> None:
    """No engine slot gave up."""
    device, config = bench.device, bench.identity.config
    failed = [number for number, value in enumerate(device.read([device.slot[number].status
                                                                 for number in range(config.slots)])) if value.failed]
    if failed:
        raise CheckFailed(f"engine slot {', '.join(map(str, failed))}: a request took longer than its watchdog allows; "
                          "`morphnic regs write slot[N].control.clear=1` takes it up again")
    if not any(int(value) for value in device.read([device.slot[number].shard for number in range(config.slots)])):
        raise CheckSkipped("no engine slot has a shard")


def losses(bench: Bench) -> None:
    """No output was stalled so long that packets were cut off, and nothing was dropped."""
    device, config = bench.device, bench.identity.config
    handles = [getattr(device.port[port], name) for port in range(config.ports) for name in ("cut", "dropped")]
    found = [f"{handle.name} {int(value)}" for handle, value in zip(handles, device.read(handles), strict=True)
             if int(value)]
    if found:
        raise CheckWarned(f"since reset packets were lost: {', '.join(found)}")


def dma(bench: Bench) -> None:
    """The device reads and writes memory of this process, and none beyond what it was granted."""
    bench.skip_unless_writer()
    bench.skip_unless(Capability.DMA)
    rng = random.Random(1)
    with bench.device.transport.map_memory(_GRANTED + PAGE_BYTES) as memory, _granted(bench, memory):
        content = rng.randbytes(_GRANTED + PAGE_BYTES)
        memory.view[:] = content
        # From within one page across the next to other bytes of both: no address, length or place of a byte is even.
        bench.equal(_transfer(bench, _READ, 3001, 4093), _DONE, "dma.status.outcome of a read")
        bench.equal(_transfer(bench, _WRITE, 13, 4093), _DONE, "dma.status.outcome of a write")
        bench.expect(bytes(memory.view) == content[:13] + content[3001:7094] + content[4106:],
                     "memory does not hold what was read from it and written back 2988 bytes before")
        written = bytes(memory.view)
        bench.equal(_transfer(bench, _WRITE, _GRANTED - 8, 9), _NO_REGION,
                    "dma.status.outcome of a write that ends a byte beyond what was granted")
        bench.expect(bytes(memory.view) == written, "memory was written that was not granted")


def interrupts(bench: Bench) -> None:
    """The end of a transfer interrupts this process, once."""
    bench.skip_unless_writer()
    bench.skip_unless(Capability.INTERRUPTS)
    events = bench.device.transport.interrupts(_ENDED + 1)
    try:
        with bench.restored(_transfer_registers(bench.device)):
            bench.equal(_transfer(bench, _READ, 0, 4), _NO_REGION, "dma.status.outcome of a read without a grant")
        arrived, *_ = select.select([events[_ENDED]], [], [], INTERRUPT_SECONDS)
        bench.expect(bool(arrived), f"no interrupt came within {INTERRUPT_SECONDS:g} s of the end of a transfer")
        bench.equal(os.eventfd_read(events[_ENDED]), 1, "the number of interrupts of one transfer")
        others, *_ = select.select(events[:_ENDED], [], [], 0)
        bench.expect(not others, "a vector interrupted whose cause did not occur")
    finally:
        bench.device.transport.interrupts(0)


@contextlib.contextmanager
def _granted(bench: Bench, memory: HostMemory) -> Iterator[None]:
    """The first bytes of `memory` are tenant 0's at `_GUEST`, in a row of the memory table that is free."""
    row, bus = _free_region(bench.device), memory.bus_address
    # What was in the row is put back with its rights, none, first.
    with bench.restored([row.rights, row.base_lo, row.base_hi, row.size_lo, row.size_hi, row.bus_lo, row.bus_hi,
                         *_transfer_registers(bench.device)]):
        bench.device.write([
            (row.base_lo, _GUEST & 0xFFFF_FFFF), (row.base_hi, _GUEST >> 32), (row.size_lo, _GRANTED), (row.size_hi, 0),
            (row.bus_lo, bus & 0xFFFF_FFFF), (row.bus_hi, bus >> 32), (row.rights, {"read": 1, "write": 1})])
        yield


def _free_region(device: Device) -> BlockHandle:
    rows = [device.region[number] for number in range(_REGIONS)]
    for row, rights in zip(rows, device.read([row.rights for row in rows]), strict=True):
        if not rights.read and not rights.write:
            return row
    raise CheckSkipped(f"all {_REGIONS} rows that tenant 0 has of the memory table are in use")


def _transfer_registers(device: Device) -> list[RegisterHandle]:
    """What a transfer is described by; its command is another."""
    return [device.dma.address_lo, device.dma.address_hi, device.dma.length, device.dma.owner]


def _transfer(bench: Bench, command: int, offset: int, length: int) -> int:
    """The outcome of a transfer between the device's buffer and tenant 0's memory at `_GUEST + offset`."""
    device, block, place = bench.device, bench.device.dma, _GUEST + offset
    bench.until(lambda: not block.status.read().busy, "the end of a transfer that somebody else began")
    device.write([(block.address_lo, place & 0xFFFF_FFFF), (block.address_hi, place >> 32), (block.length, length),
                  (block.owner, 0), (block.command, command)])
    bench.until(lambda: not block.status.read().busy, "the end of a transfer")
    return int(block.status.read().outcome)


SELFTESTS = (
    Check("identity", link_checks.identity, 5.0),
    Check("link", link, 5.0),
    Check("clock", clock, 5.0),
    Check("scratch", scratch, 5.0),
    Check("allocation", allocation, 5.0),
    Check("windows", windows, 10.0),
    Check("traffic", traffic, 30.0),
    Check("slots", slots, 5.0),
    Check("losses", losses, 5.0),
    Check("dma", dma, 30.0),
    Check("interrupts", interrupts, 30.0),
)


def run_selftest(device: Device, *, only: Sequence[str] = (), timeout: float | None = None,
                 on_result: Callable[[Result], None] | None = None) -> Report:
    """Run the self-tests, or those named in `only`. timeout: seconds of each, instead of its own."""
    checks = _chosen(only)
    if timeout is not None:
        checks = [replace(check, timeout=timeout) for check in checks]
    return run_on(device, checks=checks, suite="self-test", on_result=on_result)


def longest(only: Sequence[str] = ()) -> float:
    """Seconds within which all of them, or those named in `only`, have ended: each gives up at its time-out."""
    return sum(check.timeout for check in _chosen(only))


def _chosen(only: Sequence[str]) -> list[Check]:
    known = {check.name: check for check in SELFTESTS}
    if unknown := [name for name in only if name not in known]:
        raise InputError(f"there is no self-test {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in only] or list(SELFTESTS)


__all__ = ["SELFTESTS", "longest", "run_selftest"]
