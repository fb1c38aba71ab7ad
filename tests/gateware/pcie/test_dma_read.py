"""The read engine against a root complex that answers late, split, out of order, wrongly or not at all."""

import random

import pytest

from gateware.pcie.dma import Outcome
from gateware.pcie.dma_read import DmaReader
from gateware.pcie.tlp import RequestKind
from tests.gateware.pcie.dma_model import (
    BASE,
    Guarded,
    bus_of,
    check_request,
    command_bits,
    draw,
    grant_all,
    reports_of,
)
from tests.gateware.pcie.test_protection import grant_region
from tests.gateware.pcie.tlps import (
    ABORT,
    SUCCESS,
    UNSUPPORTED,
    Tlp,
    beats,
    collect,
    completion_layout,
    payload_bits,
    request_layout,
    sink,
    until,
)
from tests.gateware.simulation import simulate


def content(address):
    """Byte of host memory at a bus address."""
    return (address * 2654435761 >> 13) & 0xFF


def completions(tlp, rng, boundary, parts=0.5):
    """Completions of a read, split now and then at multiples of `boundary` bytes (2.3.1.1)."""
    start, size = check_request(tlp, RequestKind.READ, 4096)
    at, answers = start, []
    while at < start + size:
        ends = [end for end in range(at // boundary * boundary + boundary, start + size, boundary)]
        end = rng.choice(ends) if ends and rng.random() < parts else start + size
        low, high = at // 4 * 4, -(-end // 4) * 4
        payload = bytes(content(address) for address in range(low, high))
        answers.append(Tlp({"status": SUCCESS, "length": len(payload) // 4, "byte_count": start + size - at,
                            "lower_address": at % 128, "requester_id": tlp.requester_id, "completer_id": 0,
                            "tag": tlp.tag, "traffic_class": 0, "attributes": 0, "poisoned": 0, "locked": 0}, payload))
        at = end
    return answers


FAULTS = {
    Outcome.UNSUPPORTED: lambda answers: [answers[0].having(status=UNSUPPORTED, length=0).bare()],
    Outcome.ABORTED: lambda answers: [*answers[:-1], answers[-1].having(status=ABORT, length=0).bare()],
    Outcome.POISONED: lambda answers: [answers[0].having(poisoned=1), *answers[1:]],
    Outcome.TIMEOUT: lambda answers: answers[:-1],
    Outcome.MALFORMED: lambda answers: [answers[0].having(byte_count=answers[0].byte_count ^ 4), *answers[1:]],
}


class Host:
    """A root complex: takes requests, and answers each after a random time, with several answers interleaved."""

    def __init__(self, engine, width, rng, idle, delay, fault=lambda tlp: None, boundary=64):
        self.engine, self.width, self.rng, self.idle, self.delay = engine, width, rng, idle, delay
        self.fault, self.boundary = fault, boundary
        self.words, self.requests, self.waiting, self.most, self.faults = [], [], [], 0, {}
        self.held = []  # answers that were left out, to be sent late

    async def serve(self, ctx):
        stream = self.engine.completions
        layout = completion_layout(self.width)
        cycle = 0
        while True:
            cycle += 1
            self._take(cycle)
            ready = [answers for due, answers in self.waiting if due <= cycle]
            if not ready or self.idle():
                await ctx.tick()
                continue
            answers = self.rng.choice(ready)
            tlp = answers.pop(0)
            self.waiting = [(due, left) for due, left in self.waiting if left]
            for word in beats(tlp, layout, self.width):
                while self.idle():
                    cycle += 1
                    await ctx.tick()
                ctx.set(payload_bits(stream), word)
                ctx.set(stream.valid, 1)
                cycle += 1
                await ctx.tick().until(stream.ready)
                ctx.set(stream.valid, 0)

    def _take(self, cycle):
        new = collect(self.words[len(self.requests):], request_layout(self.width), self.width)
        for tlp in new:
            active = {answers[0].tag for _, answers in self.waiting}
            assert tlp.tag not in active, "a tag is used twice"
            self.requests.append(tlp)
            answers = completions(tlp, self.rng, self.boundary)
            fault = self.fault(tlp)
            if fault is not None:
                self.faults[len(self.requests) - 1] = fault
                if fault is Outcome.TIMEOUT:
                    self.held.append(answers[-1])
                answers = FAULTS[fault](answers)
            if answers:
                self.waiting.append((cycle + self.delay(), answers))
        self.most = max(self.most, len(self.waiting))


def bare(self):
    return Tlp(self.header, b"")


Tlp.bare = bare


def run(width, commands, rng, *, tags=8, slot=512, max_read=2, timeout=(1 << 24) - 1, idle=0.0, busy=0.0, delay=None,
        fault=lambda tlp: None, during=None, boundary=64):
    dut = Guarded(DmaReader(width, tags, slot))
    engine, data, reports = dut.engine, [], []
    host = Host(engine, width, rng, lambda: rng.random() < idle, delay or (lambda: rng.randrange(5, 200)), fault,
                boundary)
    unexpected = [0]

    async def count(ctx):
        async for _, _, value in ctx.tick().sample(engine.unexpected):
            unexpected[0] += value

    async def test(ctx):
        ctx.set(engine.max_read, max_read)
        ctx.set(engine.timeout, timeout)
        await grant_all(ctx, dut, write=False)
        for number, command in enumerate(commands):
            ctx.set(payload_bits(engine.commands), command_bits(command))
            ctx.set(engine.commands.valid, 1)
            await ctx.tick().until(engine.commands.ready)
            ctx.set(engine.commands.valid, 0)
            if during:
                await during(ctx, dut, host, number, reports)
        await until(ctx, lambda: len(reports) == len(commands), 60_000)
        await ctx.tick().repeat(30)

    simulate(dut, test, background=[
        count, host.serve, sink(engine.requests, host.words, lambda: rng.random() < busy),
        sink(engine.data, data, lambda: rng.random() < busy),
        sink(engine.reports, reports, lambda: rng.random() < busy)])
    layout = engine.data.payload.shape()
    delivered, current = [], b""
    for word in data:
        beat = layout.from_bits(word)
        current += beat["data"].to_bytes(width // 8, "little")
        if beat["last"]:
            delivered.append(current)
            current = b""
    assert current == b""
    return delivered, reports_of(reports), host, unexpected[0]


def expected(command, outcome):
    """Bytes of a command, the last beat not filled up."""
    start = bus_of(command["tenant"], command["address"])
    return bytes(content(address) for address in range(start, start + command["length"])) if outcome is Outcome.DONE \
        else b""


def filled(data, width):
    size = width // 8
    return data.ljust(max(1, -(-len(data) // size)) * size, b"\0")


@pytest.mark.slow
@pytest.mark.parametrize("width", [64, 128, 256, 512])
@pytest.mark.parametrize(("idle", "busy", "max_read"), [(0, 0, 2), (0.3, 0, 0), (0, 0.4, 5), (0.3, 0.3, 1)])
def test_random_commands_bring_their_bytes_in_order(width, idle, busy, max_read):
    seed = width + int(10 * idle + 100 * busy)
    print("seed", seed)
    rng = random.Random(seed)
    drawn = [draw(rng, number) for number in range(30)]
    delivered, reports, host, unexpected = run(width, [command for command, _ in drawn], rng, max_read=max_read,
                                               idle=idle, busy=busy)
    assert reports == [(command["tag"], outcome) for command, outcome in drawn]
    assert delivered == [filled(expected(*each), width) for each in drawn]
    for tlp in host.requests:
        check_request(tlp, RequestKind.READ, min(512, 128 << max_read))
    assert host.most > 1, "never was more than one request outstanding"
    assert unexpected == 0


@pytest.mark.slow
@pytest.mark.parametrize("width", [64, 512])
@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_of_a_completion_is_told_and_its_bytes_are_zeros(width, fault):
    seed = width + fault.value
    print("seed", seed)
    rng = random.Random(seed)
    commands = [{"tenant": 0, "generation": 5, "address": BASE + 3000 * number + 5, "length": 1200, "tag": number}
                for number in range(10)]
    delivered, reports, host, unexpected = run(
        width, commands, rng, timeout=3000 if fault is Outcome.TIMEOUT else (1 << 24) - 1,
        fault=lambda tlp: fault if rng.random() < 0.15 else None, tags=32)
    assert host.faults
    faulty = set()
    for index in host.faults:
        start, size = check_request(host.requests[index], RequestKind.READ, 512)
        faulty |= set(range(start, start + size))
    for command, found, report in zip(commands, delivered, reports, strict=True):
        start = bus_of(0, command["address"])
        span = range(start, start + command["length"])
        assert report == (command["tag"], fault if faulty & set(span) else Outcome.DONE)
        assert found == filled(bytes(0 if address in faulty else content(address) for address in span), width)
    # What came after the end of a malformed request is of a retired tag.
    assert unexpected == 0


@pytest.mark.slow
def test_a_late_completion_is_never_taken_for_that_of_another_request():
    """Two tags; the answer of the first request is lost, and comes when its tag would long be in use again."""
    rng = random.Random(1)
    commands = [{"tenant": number % 2, "generation": 5, "address": BASE + 512 * number, "length": 512, "tag": number}
                for number in range(12)]

    async def during(ctx, dut, host, number, reports):
        if number == 6:
            await until(ctx, lambda: len(reports) >= 5)
            host.waiting.append((0, host.held))

    delivered, reports, host, unexpected = run(
        64, commands, rng, tags=2, timeout=300, during=during, delay=lambda: 5,
        fault=lambda tlp: Outcome.TIMEOUT if 4 * tlp.address == 0x4000 else None)
    assert reports == [(0, Outcome.TIMEOUT)] + [(number, Outcome.DONE) for number in range(1, 12)]
    assert delivered[1:] == [expected(command, Outcome.DONE) for command in commands[1:]]
    tags = [tlp.tag for tlp in host.requests]
    assert set(tags[1:5]) == {1}, "the lost tag was used while its completion could come"
    assert set(tags[8:]) == {0, 1}, "the tag was not used again when its completion had come"
    assert unexpected == 0


def test_commands_end_when_every_tag_is_lost():
    commands = [{"tenant": 0, "generation": 5, "address": BASE, "length": 700, "tag": number} for number in range(4)]
    _, reports, host, _ = run(64, commands, random.Random(1), tags=2, timeout=60, fault=lambda tlp: Outcome.TIMEOUT,
                              boundary=4096)
    assert reports == [(number, Outcome.TIMEOUT) for number in range(4)]
    assert len(host.requests) == 2


def test_completions_that_nobody_asked_for_are_counted():
    async def during(ctx, dut, host, number, reports):
        answer = completions_for_tag(99)
        host.waiting.append((0, [answer]))
        host.waiting.append((0, [answer.having(tag=7)]))

    command = {"tenant": 0, "generation": 5, "address": BASE, "length": 100, "tag": 1}
    delivered, reports, _, unexpected = run(64, [command], random.Random(1), during=during)
    assert unexpected == 2
    assert reports == [(1, Outcome.DONE)]
    assert delivered == [filled(expected(command, Outcome.DONE), 64)]


def completions_for_tag(tag):
    return Tlp({"status": SUCCESS, "length": 1, "byte_count": 4, "lower_address": 0, "requester_id": 0,
                "completer_id": 0, "tag": tag, "traffic_class": 0, "attributes": 0, "poisoned": 0, "locked": 0},
               b"abcd")


@pytest.mark.slow
@pytest.mark.parametrize("delay", [1, 9, 14, 20])
def test_a_command_whose_region_is_taken_back_sends_no_more_requests(delay):
    commands = [{"tenant": 1, "generation": 5, "address": BASE + 1, "length": 4000, "tag": 1},
                {"tenant": 0, "generation": 5, "address": BASE + 1, "length": 600, "tag": 2}]

    async def during(ctx, dut, host, number, reports):
        if number == 0:
            await ctx.tick().repeat(delay)
            await grant_region(ctx, dut, 1, 3)

    delivered, reports, host, _ = run(64, commands, random.Random(delay), during=during, max_read=0, busy=0.5)
    assert reports[1] == (2, Outcome.DONE)
    assert reports[0][1] in (Outcome.REVOKED, Outcome.NO_REGION)
    mine = [tlp for tlp in host.requests if 4 * tlp.address >= 0x7_0000_0000]
    assert len(mine) < 4000 // 128
    if reports[0][1] is Outcome.REVOKED:
        whole = expected(commands[0], Outcome.DONE)
        done = sum(check_request(tlp, RequestKind.READ, 128)[1] for tlp in mine)
        assert delivered[0] == filled(whole[:done] + bytes(4000 - done), 64)


@pytest.mark.parametrize(("arguments", "message"), [
    ((64, 5, 512), "tags must be a power of two"), ((64, 8, 100), "slot_bytes must be"),
    ((32, 8, 512), "width must be")])
def test_wrong_parameters_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DmaReader(*arguments)
