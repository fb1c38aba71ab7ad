"""The completer of BAR0 against a model of the register bus, under pauses on every side."""

import random

import pytest

from gateware.pcie.completer import Completer
from gateware.pcie.tlp import RequestKind
from tests.gateware.pcie.tlps import (
    ABORT,
    SUCCESS,
    UNSUPPORTED,
    beats,
    collect,
    completion_layout,
    request,
    request_layout,
    sink,
    source,
    until,
)
from tests.gateware.simulation import simulate

READ, WRITE = RequestKind.READ, RequestKind.WRITE
ANSWERED = (READ, RequestKind.READ_LOCKED, RequestKind.IO_READ, RequestKind.IO_WRITE, RequestKind.ATOMIC)
HOLES = range(0x300, 0x304)  # words that no register answers
COMPLETER = 0x0500


def initial(address):
    return address * 0x01010101 & 0xFFFFFFFF ^ 0xA5A5


class Registers:
    """The register bus: words, holes, stalls. `log`: (write, word address) in order."""

    def __init__(self, bus, stall):
        self.bus, self.stall, self.words, self.log = bus, stall, {}, []

    async def serve(self, ctx):
        bus = self.bus
        while True:
            while not ctx.get(bus.valid):
                await ctx.tick()
            while self.stall():
                await ctx.tick()
            address, write = ctx.get(bus.address), ctx.get(bus.write)
            ctx.set(bus.ready, 1)
            ctx.set(bus.error, address in HOLES)
            ctx.set(bus.r_data, self.words.get(address, initial(address)))
            self.log.append((write, address))
            if write and address not in HOLES:
                self.words[address] = merged(self.words.get(address, initial(address)), ctx.get(bus.w_data),
                                             ctx.get(bus.w_mask))
            await ctx.tick()
            ctx.set(bus.ready, 0)


def merged(old, new, mask):
    bits = sum(0xFF << 8 * byte for byte in range(4) if mask >> byte & 1)
    return old & ~bits | new & bits


class Model:
    """What must come of a list of requests."""

    def __init__(self):
        self.words, self.completions = {}, []
        self.poisoned = self.unsupported = self.refused = 0

    def carry_out(self, tlp):
        if tlp.kind == WRITE:
            self._write(tlp)
        elif tlp.kind == RequestKind.MESSAGE:
            self.unsupported += 1
        elif tlp.kind != READ or tlp.bar:
            self.unsupported += 1
            self._answer(tlp, UNSUPPORTED, *(span(tlp) if tlp.kind == READ else (4, 0)))
        else:
            self._read(tlp)

    def _write(self, tlp):
        if tlp.bar:
            self.unsupported += 1
        elif tlp.poisoned:
            self.poisoned += 1
        else:
            for index in range(tlp.length):
                mask = tlp.first_be if index == 0 else tlp.last_be if index == tlp.length - 1 else 0xF
                address = tlp.address + index & 0xFFFF
                value = int.from_bytes(tlp.payload[4 * index:4 * index + 4], "little")
                if mask and address in HOLES:
                    self.refused += 1
                elif mask:
                    self.words[address] = merged(self.words.get(address, initial(address)), value, mask)

    def _read(self, tlp):
        left, lower = span(tlp)
        data = b""
        for index in range(tlp.length):
            address = tlp.address + index & 0xFFFF
            if tlp.first_be and address in HOLES:
                self._answer(tlp, ABORT, left, lower)
                return
            word = self.words.get(address, initial(address)) if tlp.first_be else 0
            data += word.to_bytes(4, "little")
            if index == tlp.length - 1 or (address + 1) % 32 == 0:
                self._answer(tlp, SUCCESS, left, lower, data)
                left, lower, data = left - len(data) + lower % 4, 0, b""

    def _answer(self, tlp, status, left, lower, data=b""):
        self.completions.append(({
            "status": status, "length": len(data) // 4, "byte_count": left, "lower_address": lower,
            "requester_id": tlp.requester_id, "completer_id": COMPLETER, "tag": tlp.tag,
            "traffic_class": tlp.traffic_class, "attributes": tlp.attributes, "poisoned": 0,
            "locked": int(tlp.kind == RequestKind.READ_LOCKED)}, data))


def span(tlp):
    """Byte count and lower address of a read, from the bytes that are enabled."""
    enabled = [4 * index + byte for index in range(tlp.length) for byte in range(4)
               if (tlp.first_be if index == 0 else tlp.last_be if index == tlp.length - 1 else 0xF) >> byte & 1]
    first = enabled[0] if enabled else 0
    return (enabled[-1] - first + 1 if enabled else 1), (4 * tlp.address + first) % 128


def exchange(width, requests, idle=lambda: False, busy=lambda: False, stall=lambda: False, depth=4):
    """Send `requests`, non-posted ones within their credit; completions, the registers, strobes counted."""
    dut = Completer(width, depth)
    registers, words = Registers(dut.bus, stall), []
    strobes = {"poisoned": 0, "unsupported": 0, "write_refused": 0, "nonposted_credit": 0}
    expected = sum(len(model_of([tlp]).completions) and 1 for tlp in requests)

    async def count(ctx):
        ports = [getattr(dut, name) for name in strobes]
        async for _, _, *values in ctx.tick().sample(*ports):
            for name, value in zip(strobes, values, strict=True):
                strobes[name] += value

    async def send(ctx):
        used = 0
        ctx.set(dut.completer_id, COMPLETER)
        for tlp in requests:
            if tlp.kind in ANSWERED:
                used += 1
                await until(ctx, lambda used=used: strobes["nonposted_credit"] >= used)
            await source(dut.requests, beats(tlp, request_layout(width), width), idle)(ctx)
        await until(ctx, lambda: strobes["nonposted_credit"] == depth + expected)
        await ctx.tick().repeat(20)

    simulate(dut, send, background=[count, registers.serve, sink(dut.completions, words, busy)])
    found = [(tlp.header, tlp.payload) for tlp in collect(words, completion_layout(width), width)]
    return found, registers, strobes


def model_of(requests):
    model = Model()
    for tlp in requests:
        model.carry_out(tlp)
    return model


def draw(rng, number):
    kind = rng.choice([READ] * 6 + [WRITE] * 6 + [*RequestKind])
    length = rng.choice([1, 1, 1, 2, 2, 3, 4, 16, 33, 70])
    address = 4 * rng.choice([0x40, 0x2F0, 0x301, rng.randrange(0x10000 - 70), rng.randrange(0x2C0, 0x310)])
    first, last = rng.choice([0xF, 0xF, 0xC, 0x8, 0xE]), rng.choice([0xF, 0xF, 3, 1, 7])
    if length == 1:
        first = rng.choice([0xF, 0xF, 1, 2, 6, 8, 5, 0])
    data = rng.randbytes(4 * length) if kind == WRITE else b""
    return request(kind, address, data=data, length=length, first_be=first, last_be=last, tag=number % 256,
                   bar=rng.choice([0] * 9 + [2]), poisoned=int(kind == WRITE and rng.random() < 0.1),
                   requester_id=rng.getrandbits(16), attributes=rng.getrandbits(3), traffic_class=rng.getrandbits(3))


@pytest.mark.slow
@pytest.mark.parametrize("width", [64, 128, 256, 512])
@pytest.mark.parametrize(("idle", "busy", "stall"), [(0, 0, 0), (0.5, 0, 0.3), (0, 0.7, 0), (0.4, 0.4, 0.6)])
def test_random_requests_end_as_in_the_model(width, idle, busy, stall):
    seed = width + int(100 * idle + 10 * busy + stall)
    print(f"seed {seed}")
    rng = random.Random(seed)
    requests = [draw(rng, number) for number in range(60)]
    found, registers, strobes = exchange(width, requests, lambda: rng.random() < idle, lambda: rng.random() < busy,
                                         lambda: rng.random() < stall)
    # A write may overtake reads that wait: what these return is checked where none is overtaken (next test).
    model = model_of(requests)
    assert registers.words == model.words
    assert (strobes["poisoned"], strobes["unsupported"], strobes["write_refused"]) == (
        model.poisoned, model.unsupported, model.refused)
    assert [header for header, _ in found] == [header for header, _ in model.completions]


@pytest.mark.slow
@pytest.mark.parametrize("width", [64, 512])
@pytest.mark.parametrize("busy", [0, 0.6])
def test_reads_return_what_was_written_when_they_are_answered_one_by_one(width, busy):
    print(f"seed {width}")
    rng = random.Random(width)
    requests = [draw(rng, number) for number in range(40)]
    model = Model()
    dut = Completer(width, 1)
    registers, words, credits = Registers(dut.bus, lambda: rng.random() < 0.2), [], [0]

    async def count(ctx):
        async for _, _, value in ctx.tick().sample(dut.nonposted_credit):
            credits[0] += value

    async def send(ctx):
        used = 0
        ctx.set(dut.completer_id, COMPLETER)
        for tlp in requests:
            await until(ctx, lambda used=used: credits[0] == used + 1)  # nothing waits to be answered
            used += tlp.kind in ANSWERED
            await source(dut.requests, beats(tlp, request_layout(width), width))(ctx)
            model.carry_out(tlp)
        await until(ctx, lambda: credits[0] == used + 1)

    simulate(dut, send, background=[count, registers.serve, sink(dut.completions, words,
                                                                 lambda: rng.random() < busy)])
    found = [(tlp.header, tlp.payload) for tlp in collect(words, completion_layout(width), width)]
    assert found == model.completions


def test_a_write_is_carried_out_while_completions_are_held_back():
    dut = Completer(64, 2)
    registers = Registers(dut.bus, lambda: False)

    async def send(ctx):
        for tlp in [request(READ, 0, length=4), request(READ, 64, length=4), request(WRITE, 128, data=b"abcdefgh")]:
            await source(dut.requests, beats(tlp, request_layout(64), 64))(ctx)
        await until(ctx, lambda: len(registers.words) == 2, 100)
        assert not ctx.get(dut.completions.ready)

    simulate(dut, send, background=[registers.serve])
    assert registers.words == {32: int.from_bytes(b"abcd", "little"), 33: int.from_bytes(b"efgh", "little")}


def test_a_read_sees_the_write_before_it():
    data = bytes(range(100, 200))
    found, _, _ = exchange(128, [request(WRITE, 4096, data=data), request(READ, 4096, length=25)],
                           stall=iter([False, True, True, True] * 1000).__next__)
    assert b"".join(payload for _, payload in found) == data


def test_a_long_read_is_split_at_the_read_completion_boundary():
    found, _, _ = exchange(64, [request(READ, 120, length=66, first_be=0xE, last_be=0x3)])
    assert [(header["length"], header["byte_count"], header["lower_address"]) for header, _ in found] == [
        (2, 261, 121), (32, 254, 0), (32, 126, 0)]


def test_a_read_of_no_bytes_is_answered_without_an_access():
    found, registers, _ = exchange(64, [request(READ, 4 * HOLES[0], length=1, first_be=0)])
    assert [(header["status"], header["byte_count"], data) for header, data in found] == [(SUCCESS, 1, bytes(4))]
    assert registers.log == []


def test_a_refused_word_aborts_the_rest_of_a_read_and_nothing_before_the_boundary():
    found, _, _ = exchange(64, [request(READ, 4 * (HOLES[0] - 8), length=10)])
    assert [(header["status"], header["length"], header["byte_count"]) for header, _ in found] == [
        (SUCCESS, 8, 40), (ABORT, 0, 8)]


@pytest.mark.parametrize(("arguments", "message"), [((96, 4), "width must be one of"), ((64, 0), "depth must be")])
def test_wrong_parameters_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Completer(*arguments)
