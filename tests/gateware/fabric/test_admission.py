"""Admission of one input: grants, stamps, malformed packets, drop and stall, request events."""

import random
from functools import partial

import pytest
from amaranth.hdl import Cat

from gateware.config import DeviceConfig
from gateware.fabric.admission import Admission
from tests.gateware.fabric.bench import PROCESS, Packet, commit, drive_beats, drive_headers, header_dict, row
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(ports=3, data_width=64, tenants=4, pages=32)
HOST, NET, ENGINE = 0, 1, 2
EVERYWHERE = 0b111


class Result:
    """What one run wrote into the crosspoints, and reported."""

    def __init__(self):
        self.stored = []      # (crosspoint, tenant, reserved beats, header, payload)
        self.events = []      # (kind, header)
        self.requests = []    # (tenant, lba, opcode, sequence)
        self.stalled = 0
        self.taken = 0        # beats that the input took
        self.near = 0         # cycles in which a stalled input kept a queue open

    def kinds(self):
        return [kind for kind, _ in self.events]


class Input:
    """One input, its crosspoints played by `answers(cycle, crosspoint)` -> (fits, hold)."""

    def __init__(self, port, config, answers):
        self.dut, self.config, self.answers = Admission(config, port), config, answers
        self.result = Result()
        self.started = False
        self.open = [None] * config.ports   # of the packet under way: [tenant, beats that fit its pages, payload]

    async def watch(self, ctx):
        """Keeps what is reported, and what is written."""
        dut, result = self.dut, self.result
        written = [value for booking, point in zip(dut.bookings, dut.crosspoints, strict=True)
                   for value in (booking.reserve, Cat(booking.tenant, booking.need), point.write, point.beat,
                                 Cat(point.first, point.end), point.header, point.tenant, point.placed)]
        i = dut.ingress
        ticks = ctx.tick().sample(i.admit, i.drop, i.header, i.stalled, i.request, i.request_tenant, i.request_word,
                                  dut.packets.data.valid & dut.packets.data.ready,
                                  Cat(booking.near for booking in dut.bookings), *written)
        async for (_, _, admit, drop, header, stalled, request, tenant, word, taken, near, *rest) in ticks:
            if admit or drop:
                result.events.append(("admit" if admit else "drop", header_dict(header)))
            if request:
                result.requests.append((tenant, int(word.lba), int(word.opcode.value), int(word.sequence)))
            result.stalled += stalled
            result.taken += taken
            result.near += bool(stalled and near)
            for number in range(self.config.ports):
                self.follow(number, *rest[8 * number:8 * number + 8])

    def follow(self, number, reserve, booking, write, beat, marks, header, writer, placed):
        """One cycle of one crosspoint: bookings and beats must fit together."""
        if reserve:
            assert self.open[number] is None
            width = len(self.dut.bookings[number].tenant)
            tenant, need = booking & (1 << width) - 1, booking >> width
            assert placed.shares or not placed.start
            self.open[number] = [tenant, 16 * (need + placed.shares) - placed.start, b""]
        if not write:
            return
        size, current = self.config.beat_bytes, self.open[number]
        count = size - int(beat.empty)
        first, end = marks & 1, marks >> 1
        assert first == (current[2] == b"") == reserve
        assert writer == current[0]
        assert int(beat.last) == end
        assert end or count == size
        current[2] += int(beat.data).to_bytes(size, "little")[:count]
        if end:
            beats = -(-len(current[2]) // size)
            assert 0 <= current[1] - beats < 16, "not the pages that it needs"
            self.result.stored.append((number, current[0], beats, header_dict(header), current[2]))
            self.open[number] = None

    async def control(self, ctx, rows, commits, cycles):
        """Commits tables, lets the packets begin, and answers."""
        dut = self.dut
        bank, epoch = await commit(ctx, dut.allocation, rows)
        pending = list(commits)
        self.started = True
        for cycle in range(cycles):
            if pending and pending[0][0] == cycle:
                bank, epoch = await commit(ctx, dut.allocation, pending.pop(0)[1], bank, epoch)
            ctx.set(dut.cycle, 1000 + cycle)
            for number, booking in enumerate(dut.bookings):
                fits, hold = self.answers(cycle, number)
                ctx.set(booking.fits, fits)
                ctx.set(booking.hold, hold)
            await ctx.tick()

    def when_started(self, drive, *arguments):
        """The driver, from when the table is in force."""
        async def process(ctx):
            while not self.started:
                await ctx.tick()
            await drive(ctx, *arguments)
        return process


def run(packets, rows, port=HOST, config=CONFIG, answers=lambda cycle, number: (1, 0), cycles=None,
        idle=lambda: False, commits=()):
    """Feeds `packets` to one input, and returns what it did; `commits` are (cycle, rows) pairs."""
    bench = Input(port, config, answers)
    stream, size = bench.dut.packets, config.beat_bytes
    cycles = cycles or 40 + sum(6 + 3 * len(packet.payload) // size for packet in packets)
    simulate(bench.dut, partial(bench.control, rows=rows, commits=commits, cycles=cycles), background=[
        bench.watch, bench.when_started(drive_headers, stream.header, packets),
        bench.when_started(drive_beats, stream.data, packets, size, idle)])
    return bench.result


def granted(**changes):
    return row(CONFIG, **{"weight": 10, "pages": 4, "ports": EVERYWHERE, **changes})


ROWS = [granted() for _ in range(4)]


def test_an_admitted_packet_is_stamped_and_stored_unchanged():
    rng = random.Random(1)
    packets = [Packet(tenant, destination, rng.randbytes(size), flow_hash=size)
               for tenant, destination, size in [(0, 0, 1), (1, 1, 8), (2, 2, 9), (3, 0, 64), (1, 2, 2048)]]
    result = run(packets, ROWS, port=NET)
    assert result.kinds() == ["admit"] * 5
    for packet, (number, tenant, beats, header, payload), (_, reported) in zip(
            packets, result.stored, result.events, strict=True):
        assert (number, tenant, payload) == (packet.destination, packet.tenant, packet.payload)
        assert beats == -(-len(payload) // 8)
        assert header == reported
        assert header["source"] == NET
        assert header["epoch"] == 1
        assert header["length"] == len(payload)
        assert header["flow_hash"] == packet.flow_hash


@pytest.mark.slow
@pytest.mark.parametrize(("packet", "changes"), [
    (Packet(1, 1, bytes(64)), {"weight": 0}),
    (Packet(1, 1, bytes(64)), {"ports": 0b101}),
    (Packet(1, 3, bytes(64)), {"ports": 0xFFFF}),
    (Packet(1, 14, bytes(64)), {"ports": 0xFFFF}),
    (Packet(4, 1, bytes(64)), {}),
    (Packet(63, 1, bytes(64)), {}),
    (Packet(1, 1, bytes(64), length=0), {}),
    (Packet(1, 1, bytes(64), length=2049), {}),
    (Packet(1, 15, bytes(64)), {"ports": 0b011}),
    (Packet(1, 15, bytes(64)), {"ports": 0b110, "host_share": 256}),
], ids=["weight 0", "port not granted", "no such port", "no such port either", "no such tenant", "tenant 63",
        "length 0", "too long", "processing at an engine not granted", "processing at a host not granted"])
@pytest.mark.parametrize("port", [HOST, NET, ENGINE])
def test_what_is_not_granted_is_dropped_entirely_at_every_port(packet, changes, port):
    """The next packet of another tenant is admitted as if nothing had been before it."""
    rows = [*ROWS]
    rows[1] = granted(**changes)
    result = run([packet, Packet(2, 2, b"good")], rows, port)
    assert result.kinds() == ["drop", "admit"]
    assert result.events[0][1]["tenant"] == packet.tenant
    assert [(number, payload) for number, *_, payload in result.stored] == [(2, b"good")]
    assert result.taken == 9


@pytest.mark.slow
@pytest.mark.parametrize(("payload", "length"), [
    (40, 16), (40, 13), (40, 1), (8, 1),            # more than announced: cut at the length
    (16, 40), (13, 40), (1, 2048), (8, 9), (1, 9),  # less: filled up with zeros
    (16, 13), (13, 16),                             # within the last beat: as announced
])
@pytest.mark.parametrize("gaps", [0, 0.5])
def test_length_that_disagrees_with_the_beats_harms_nobody(payload, length, gaps):
    rng = random.Random(payload + length)
    body = rng.randbytes(payload)
    result = run([Packet(1, 1, body, length=length), Packet(2, 1, b"next packet")], ROWS, cycles=400,
                 idle=lambda: rng.random() < gaps)
    assert result.kinds() == ["admit", "admit"]
    (_, _, beats, header, got), second = result.stored
    assert got == (body + bytes(length))[:length]
    assert header["length"] == length
    assert beats == -(-length // 8)
    assert second[4] == b"next packet"


@pytest.mark.parametrize("beats", [1, 2, 3, 16])
def test_packets_follow_each_other_without_a_pause(beats):
    """Admitted, refused and filled-up ones alike: the data port is taken in every cycle."""
    packets = [Packet(n % 3 + 1, (1, 15, 2, 1)[n % 4], bytes(8 * beats)) for n in range(40)]
    rows = [granted(), granted(), granted(ports=0b001), granted(host_share=128)]
    result = run(packets, rows, cycles=40 * beats + 5)
    assert result.taken == 40 * beats
    assert {"admit", "drop"} <= set(result.kinds())


@pytest.mark.parametrize("port", [HOST, ENGINE])
@pytest.mark.parametrize("destination", [HOST, NET, ENGINE])
def test_a_port_without_pages_waits_until_there_are_some(port, destination):
    result = run([Packet(1, destination, bytes(16))], ROWS, port, cycles=60,
                 answers=lambda cycle, number: (number != destination or cycle >= 30, 0))
    assert result.kinds() == ["admit"]
    assert result.events[0][1]["timestamp"] == (0 if port == HOST else 1030)
    assert result.stalled == 27, "in each cycle from the first that it is judged in"
    assert result.near <= 2, "it may wait for the page of the queue that it keeps open"


@pytest.mark.parametrize(("port", "kept"), [(HOST, True), (NET, False), (ENGINE, False)])
def test_only_the_host_s_queues_say_when_a_packet_was_posted(port, kept):
    result = run([Packet(1, 1, bytes(16), timestamp=77)], ROWS, port)
    stamp = result.events[0][1]["timestamp"]
    assert (stamp == 77) is kept
    assert kept or stamp >= 1000


@pytest.mark.parametrize(("full", "other"), [(HOST, NET), (NET, ENGINE), (ENGINE, HOST)])
def test_a_network_port_without_pages_drops(full, other):
    result = run([Packet(1, full, bytes(16)), Packet(1, other, b"good")], ROWS, NET,
                 answers=lambda cycle, number: (number == other, 0))
    assert result.kinds() == ["drop", "admit"]
    assert result.stalled == 0
    assert [payload for *_, payload in result.stored] == [b"good"]


def test_hold_is_no_answer_and_drops_nothing():
    result = run([Packet(1, 1, bytes(16))], ROWS, NET, cycles=60,
                 answers=lambda cycle, number: (cycle >= 25, cycle < 25))
    assert result.kinds() == ["admit"]
    assert result.events[0][1]["timestamp"] == 1025


@pytest.mark.slow
@pytest.mark.parametrize(("quota", "shared", "admitted"), [(2, 0, True), (1, 1, True), (1, 0, False), (0, 2, True)])
@pytest.mark.parametrize("port", [HOST, NET])
def test_a_packet_that_can_never_fit_is_dropped_instead_of_waiting(quota, shared, admitted, port):
    rows = [granted(pages=quota), granted(pages=CONFIG.pages - quota - shared), granted(pages=0), granted(pages=0)]
    result = run([Packet(0, 1, bytes(17 * 8))], rows, port, answers=lambda cycle, number: (admitted, 0))
    assert result.kinds() == ["admit" if admitted else "drop"]


def test_a_waiting_packet_is_judged_and_stamped_under_the_table_of_its_decision():
    revoked = [granted(), granted(weight=0), granted(), granted()]
    result = run([Packet(1, 1, bytes(16)), Packet(2, 1, bytes(8))], ROWS, HOST, cycles=80,
                 answers=lambda cycle, number: (cycle >= 40, 0), commits=[(20, revoked)])
    assert result.kinds() == ["drop", "admit"]
    assert [header["epoch"] for _, header in result.events] == [2, 2]


@pytest.mark.slow
@pytest.mark.parametrize(("share", "host"), [(0, 0), (200, 200), (256, 256)])
def test_processing_is_divided_exactly_for_each_tenant(share, host):
    """Tenants interleaved: each has its own accumulator; other destinations and refusals do not count."""
    rows = [granted(host_share=share), granted(host_share=128), granted(ports=0b011), granted()]
    packets = []
    for _ in range(256):
        packets += [Packet(0, 15, bytes(8)), Packet(1, 15, bytes(8))]
        packets += [Packet(0, 1, bytes(8)), Packet(2, 15, bytes(8))][:len(packets) % 3]
    result = run(packets, rows)
    count = {tenant: [0, 0] for tenant in (0, 1)}
    for number, tenant, _, header, _ in result.stored:
        assert header["destination"] == number
        if number != 1:
            count[tenant][number == HOST] += 1
    assert count == {0: [256 - host, host], 1: [128, 128]}


@pytest.mark.slow
@pytest.mark.parametrize("tenant", range(4))
def test_processing_is_divided_exactly_around_packets_that_are_dropped(tenant):
    """They are not counted, whoever comes behind them."""
    rng = random.Random(tenant)
    kinds = [rng.random() < 0.5 for _ in range(60)]
    packets = [Packet(tenant, PROCESS, bytes(8), length=None if is_good else 0) for is_good in kinds]
    result = run(packets, [granted(host_share=100) for _ in range(4)])
    assert result.kinds() == ["admit" if is_good else "drop" for is_good in kinds]
    shares = [100 * number % 256 + 100 >= 256 for number in range(sum(kinds))]
    assert [number == HOST for number, *_ in result.stored] == shares


@pytest.mark.parametrize("pause", [5, 6, 7, 8])
def test_processing_is_divided_exactly_whatever_is_committed_meanwhile(pause):
    """Each commit makes admission look up anew what it knew; the same table again and again changes no division."""
    rng = random.Random(pause)
    rows = [granted(host_share=share) for share in (100, 128, 77, 0)]
    packets = [Packet(rng.choice([0, 0, 1, 2]), rng.choice([15, 15, 15, 1]), bytes(8 * rng.choice([1, 1, 2, 5])))
               for _ in range(200)]
    result = run(packets, rows, cycles=1500, commits=[(pause * n, rows) for n in range(100)])
    total, expected = [0] * 4, []
    for packet in packets:
        destination = packet.destination
        if destination == 15:
            total[packet.tenant] += (100, 128, 77, 0)[packet.tenant]
            destination = HOST if total[packet.tenant] >= 256 else ENGINE
            total[packet.tenant] %= 256
        expected.append(destination)
    assert [number for number, *_ in result.stored] == expected


@pytest.mark.slow
@pytest.mark.parametrize("width", [32, 64, 128])
def test_requests_are_reported_with_their_word_once(width):
    config = DeviceConfig(ports=2, data_width=width, tenants=2, pages=32)
    rows = [row(config, weight=1, pages=8, ports=3), row(config, weight=0)]
    word = (0x123456789 | 2 << 36 | 0xABCDEF << 40).to_bytes(8, "little")
    packets = [
        Packet(0, 1, word + bytes(50), flow_class=8),
        Packet(0, 1, word, flow_class=9),
        Packet(0, 1, word + bytes(8), flow_class=1),       # no request class
        Packet(0, 1, word + bytes(8), flow_class=12),      # a response
        Packet(0, 1, word[:7], flow_class=8),              # ends before the word does
        Packet(0, 1, word[:3], flow_class=8),
        Packet(0, 1, word[:3], flow_class=8, length=16),
        Packet(1, 1, word, flow_class=8),                  # dropped
        Packet(0, 1, word + bytes(9), flow_class=10),
    ]
    result = run(packets, rows, config=config)
    assert result.requests == [(0, 0x123456789, 2, 0xABCDEF)] * 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_idle_gaps_and_busy_crosspoints_change_nothing(seed):
    rng = random.Random(seed)
    packets = [Packet(rng.randrange(5), rng.randrange(4), rng.randbytes(rng.randrange(1, 60)),
                      length=rng.choice([None, None, 5, 30])) for _ in range(60)]
    pattern = [rng.random() < 0.5 for _ in range(8000)]
    result = run(packets, ROWS, answers=lambda cycle, number: (1, pattern[cycle]), cycles=2500,
                 idle=lambda: rng.random() < 0.3)
    expected = [(p.destination, p.tenant, (p.payload + bytes(p.announced))[:p.announced]) for p in packets
                if p.tenant < 4 and p.destination < 3]
    assert [(number, tenant, payload) for number, tenant, _, _, payload in result.stored] == expected
    assert len(result.events) == 60


def test_port_must_exist():
    with pytest.raises(ValueError, match=r"port must be in 0\.\.2, not 3"):
        Admission(CONFIG, 3)


RESPONSE = 12


@pytest.mark.parametrize("changes", [{"ports": 0b110}, {"weight": 0}, {"ports": 0}], ids=str)
def test_an_answer_goes_its_way_under_the_epoch_of_its_request_whatever_the_table_says_now(changes):
    rows = [granted(), granted(**changes), granted(), granted()]
    answers = [Packet(1, HOST, bytes(range(16)), flow_class=RESPONSE, epoch=epoch) for epoch in (0, 1, 255)]
    result = run(answers, rows, ENGINE)
    assert result.kinds() == ["admit"] * 3
    assert [header["epoch"] for _, header in result.events] == [0, 1, 255]
    assert [(number, payload) for number, *_, payload in result.stored] == [(HOST, bytes(range(16)))] * 3


@pytest.mark.parametrize("port", [HOST, NET])
def test_nobody_else_can_claim_to_be_an_answer(port):
    rows = [granted(), granted(ports=0b110), granted(), granted()]
    result = run([Packet(1, HOST, bytes(16), flow_class=RESPONSE, epoch=9),
                  Packet(2, HOST, bytes(16), flow_class=RESPONSE, epoch=9)], rows, port)
    assert result.kinds() == ["drop", "admit"]
    assert result.events[1][1]["epoch"] == 1


@pytest.mark.parametrize(("tenant", "destination"), [(63, HOST), (1, 3)])
def test_an_answer_of_a_tenant_or_to_a_port_that_does_not_exist_is_dropped(tenant, destination):
    assert run([Packet(tenant, destination, bytes(16), flow_class=RESPONSE)], ROWS, ENGINE).kinds() == ["drop"]


@pytest.mark.parametrize("destination", [ENGINE, 15])
def test_who_may_not_have_the_answer_may_not_ask(destination):
    for port in (HOST, NET):
        rows = [granted(), granted(ports=0b111 & ~(1 << port)), granted(), granted()]
        result = run([Packet(1, destination, bytes(16)), Packet(2, destination, bytes(16))], rows, port)
        assert result.kinds() == ["drop", "admit"]
