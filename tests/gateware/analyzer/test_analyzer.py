"""The whole analyzer against the golden model: every event in exactly one window, whatever else happens."""

import itertools
import random
from dataclasses import replace

import pytest

from gateware.analyzer.analyzer import RESET_WINDOW, Analyzer
from gateware.analyzer.figures import FigureId
from gateware.analyzer.flags import FlagBits
from gateware.config import DeviceConfig
from gateware.csr import regmap
from tests.gateware.analyzer.harness import IDLE_EGRESS, IDLE_INGRESS, Bench, Traffic, address
from tests.gateware.analyzer.model import DETAIL, FULL_RATE, WORDS, Cycle, Egress, Ingress, Model
from tests.gateware.csr.initiator import access

pytestmark = pytest.mark.slow  # together more than `make test-fast` has time for

CONFIG = DeviceConfig(ports=3, tenants=3)
WINDOW = 530
IDLE = Cycle([IDLE_INGRESS] * CONFIG.ports, [IDLE_EGRESS] * CONFIG.ports, [None] * CONFIG.slots)
SLO = [0, 100, 5000]
PATTERN_FLAGS = FlagBits.const({"is_sequential": 1, "is_strided": 1}).as_bits()
HOST = [(0, 0), (255, 1), (7, 204)]
COUNTED = ("bytes_in", "packets_in", "requests", "sequential", "bytes_out", "packets_out", "drops",
           "backpressure_cycles", "engine_cycles", "latency_sum_low", "latency_max", "slo_misses")
ELIGIBLE = [0b11, 0, 0]  # after reset tenant 0 owns every slot


async def set_up(ctx, bench, length, slos):
    for tenant, (slo, (cpu, memory)) in enumerate(zip(slos, HOST, strict=True)):
        await bench.write(ctx, slo, "objective", tenant, "slo")
        await bench.write(ctx, cpu | memory << 8, "objective", tenant, "host")
    await bench.write(ctx, length, "analyzer", None, "window")
    await bench.write(ctx, 1, "analyzer", None, "control")


def observe(traffic, *, windows, bench=None, ready=lambda: True, software=None, config=CONFIG, length=None, slos=SLO):
    """Drive `traffic`, an iterator of `Cycle`s, until `windows` windows were pushed; return bench and model.
    length: of the second window and all after it."""
    bench = bench or Bench(config, WINDOW)
    others = config.tenants - CONFIG.tenants
    model = Model(config, bench.window, slos + [0] * others, HOST + [(0, 0)] * others, ELIGIBLE + [0] * others)
    model.setting = length = length or bench.window
    started, first = [], bench.cycle

    async def control(ctx):
        await set_up(ctx, bench, length, slos)
        started.append(True)
        if software:
            await software(ctx, bench, model)

    async def drive(ctx):
        while len(bench.windows) < windows:
            assert bench.cycle - first < 12 * length * (windows + 1), "too few windows were pushed"
            events = next(traffic, IDLE) if started else IDLE
            model.step(events)
            ctx.set(bench.dut.telemetry.ready, ready())
            await bench.step(ctx, events)

    bench.simulator.add_testbench(control, background=True)
    bench.simulator.add_testbench(drive)
    bench.simulator.run()
    return bench, model


def random_traffic(seed, cycles, **options):
    traffic = Traffic(CONFIG, seed, **options)
    return (traffic.cycle() for _ in range(cycles))


def assert_same(windows, model):
    for window in windows:
        expected = model.windows[window.number - 1]
        assert (window.start, window.cycles) == (expected.start, expected.cycles)
        for tenant, (row, wanted) in enumerate(zip(window.rows, expected.rows, strict=True)):
            different = {name: (row[name], wanted[name]) for name in WORDS if row[name] != wanted[name]}
            assert not different, f"window {window.number}, tenant {tenant}: (device, model) {different}"


@pytest.mark.parametrize(("seed", "load", "tenants"), [(0, 0.5, None), (1, 1.0, None), (2, 1.0, [1])])
def test_every_window_equals_the_model_with_events_at_all_ports(seed, load, tenants):
    bench, model = observe(random_traffic(seed, 700, load=load, tenants=tenants), windows=4)
    assert [window.number for window in bench.windows] == list(range(1, 5))
    assert_same(bench.windows, model)


@pytest.mark.long
@pytest.mark.parametrize("length", [16 * 128, 16 * 191, 16 * 127 + 15])
def test_long_parts_of_several_slices_equal_the_model(length):
    """Slices of 64 cycles: parts of two, of one and the longest that there is, and of one with two in the last part."""
    bench, model = observe(random_traffic(length, WINDOW + length, load=0.7), windows=2, length=length)
    assert [window.cycles for window in bench.windows] == [WINDOW, length]
    assert_same(bench.windows, model)


def test_counts_hold_the_largest_amounts_in_every_cycle_of_the_longest_slice():
    length = 16 * 191
    busy = Cycle([Ingress(admit=(1, 4095), stalled=1)] * 2 + [Ingress(drop=1, stalled=1)],
                 [Egress(leave=(1, 4095, (1 << 32) - 1, False))] * 2 + [IDLE_EGRESS], [1] * CONFIG.slots)
    bench, model = observe(itertools.repeat(busy), windows=2, length=length)
    assert_same(bench.windows, model)
    assert bench.windows[1].rows[1]["latency_sum_low"] == 0xFFFFFFFF


@pytest.mark.slow
def test_sums_over_windows_equal_the_totals():
    events = list(random_traffic(5, 500, load=0.8))
    bench, _ = observe(iter(events), windows=3)
    for tenant in range(CONFIG.tenants):
        admitted = [event.admit[1] for cycle in events for event in cycle.ingress
                    if event.admit and event.admit[0] == tenant]
        left = [event.leave for cycle in events for event in cycle.egress
                if event.leave and event.leave[0] == tenant and not event.leave[3]]
        requests = [event.request for cycle in events for event in cycle.ingress[:-1]
                    if event.request and event.request[0] == tenant and event.request[1] != 0]
        total = {name: sum(window.rows[tenant][name] for window in bench.windows) for name in WORDS}
        assert total["bytes_in"] == sum(admitted)
        assert total["packets_in"] == len(admitted)
        assert total["requests"] == len(requests)
        assert total["bytes_out"] == sum(leave[1] for leave in left)
        assert total["latency_sum_low"] == sum(leave[2] for leave in left)


@pytest.mark.parametrize("offset", [-1, 0])
def test_event_at_a_boundary_is_in_the_window_of_its_cycle(offset):
    at = WINDOW + offset
    busy = Cycle([Ingress(admit=(1, 100), request=(1, 1, 10), stalled=1)] * 3,
                 [Egress(leave=(1, 100, 200, False))] * 3, [1, 1])
    bench = Bench(CONFIG, WINDOW)

    def traffic():
        while True:
            yield busy if bench.cycle == at else IDLE

    observe(traffic(), windows=2, bench=bench)
    hit, other = (0, 1) if offset < 0 else (1, 0)
    row = bench.windows[hit].rows[1]
    assert [row[name] for name in ("bytes_in", "requests", "packets_out", "slo_misses", "latency_sum_low")] == \
        [300, 2, 3, 3, 600]
    assert (row["backpressure_cycles"], row["engine_cycles"]) == (3, 2)
    assert not any(bench.windows[other].rows[1][name] for name in COUNTED)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("tenants", [[0, 1, 2], [1]])
def test_nothing_is_lost_with_an_event_of_every_kind_at_every_port_in_every_cycle(tenants):
    """Three windows without an idle cycle, then silence; requests beyond what can be classified still count."""
    cycles = 3 * WINDOW + 100

    def traffic():
        for number in range(cycles):
            tenant = tenants[number % len(tenants)]
            yield Cycle([Ingress((tenant, 64), None, (tenant, 1, 8 * number), tenant) for _ in range(3)],
                        [Egress((tenant, 64, 9, False)) for _ in range(3)], [tenant, tenant])

    bench = Bench(CONFIG, WINDOW)
    passed = []

    async def software(ctx, bench, model):
        while len(bench.windows) < 5:
            await ctx.tick()
        passed.append(await bench.read(ctx, "analyzer", None, "passed_over"))

    observe(traffic(), windows=6, bench=bench, software=software)
    for tenant in tenants:
        events = len(range(tenants.index(tenant), cycles, len(tenants)))
        total = {name: sum(window.rows[tenant][name] for window in bench.windows) for name in WORDS}
        assert [total[name] for name in ("packets_in", "bytes_in", "packets_out", "bytes_out", "latency_sum_low")] == \
            [3 * events, 192 * events, 3 * events, 192 * events, 27 * events]
        assert (total["requests"], total["backpressure_cycles"], total["engine_cycles"]) == (
            2 * events, 3 * events, 2 * events)
        assert {window.rows[tenant]["queue"] & 0xFFFF for window in bench.windows} == {0}
    # Both request ports offer one a cycle, one every second cycle is classified, and each queue holds a few at the end.
    assert abs(passed[0] - 3 * cycles / 2) < 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", [6])
def test_slow_consumer_gets_whole_windows_and_the_skipped_ones_are_counted(seed):
    rng = random.Random(seed)
    bench, model = observe(random_traffic(seed, 2500), windows=3, ready=lambda: rng.random() < 0.08)
    assert_same(bench.windows, model)
    numbers = [window.number for window in bench.windows]
    assert numbers[-1] > 3, "the consumer was not slow"
    for before, window in zip([None, *bench.windows], bench.windows, strict=False):
        previous = before.number if before else 0
        assert window.extra["skipped"] - (before.extra["skipped"] if before else 0) == window.number - previous - 1


@pytest.mark.slow
def test_detail_changes_with_the_snapshot():
    shots = []

    async def software(ctx, bench, model):
        for _ in range(2):
            before = await bench.read(ctx, "analyzer", None, "sequence")
            while (number := await bench.read(ctx, "analyzer", None, "sequence")) == before:
                pass
            shots.append((number, [{name: await bench.read(ctx, "detail", tenant, name) for name in DETAIL}
                                   for tenant in range(CONFIG.tenants)]))
            assert await bench.read(ctx, "analyzer", None, "passed_over") == 0

    _, model = observe(random_traffic(11, 2500), windows=4, software=software)
    assert [rows for _, rows in shots] == [model.details[number - 1] for number, _ in shots]
    assert any(row["strided"] for _, rows in shots for row in rows), "the stimulus misses a case"
    assert all(row["depth_mean"] and row["burstiness"] and row["latency_mean"] for row in shots[0][1])


@pytest.mark.slow
def test_figures_are_swept_once_a_window():
    """Start, each (tenant, figure) once in order of tenants, end; the values are those of the model's window."""
    bench = Bench(CONFIG, WINDOW)
    sweeps, seen = [], []

    async def listen(ctx):
        figures = bench.dut.figures
        async for _, _, start, end, valid, tenant, figure, value in ctx.tick().sample(
                figures.start, figures.end, figures.valid, figures.tenant, figures.figure, figures.value):
            if start:
                assert not valid
                assert not seen
            if valid:
                seen.append((tenant, figure, value))
            if end:
                assert not valid
                sweeps.append(list(seen))
                seen.clear()

    bench.simulator.add_testbench(listen, background=True)
    _, model = observe(random_traffic(12, 2000), windows=3, bench=bench)
    for sweep, window, details in zip(sweeps, model.windows, model.details, strict=False):
        found = {(tenant, figure): value for tenant, figure, value in sweep}
        assert len(found) == len(sweep) == CONFIG.tenants * len(FigureId)
        assert [tenant for tenant, _, _ in sweep] == sorted(tenant for tenant, _, _ in sweep)
        for tenant, (row, detail) in enumerate(zip(window.rows, details, strict=True)):
            assert {figure: found[tenant, figure] for figure in FigureId} == {
                FigureId.BYTES_IN: row["bytes_in"], FigureId.PACKETS_IN: row["packets_in"],
                FigureId.REQUESTS: row["requests"], FigureId.DEPTH_MAX: row["peak"] & 0xFFFF,
                FigureId.DEPTH_MEAN: detail["depth_mean"], FigureId.STALLED: row["backpressure_cycles"],
                FigureId.BUSY: row["engine_cycles"], FigureId.LATENCY_MEAN: detail["latency_mean"],
                FigureId.LATENCY_MAX: row["latency_max"], FigureId.MISSED: row["slo_misses"],
                FigureId.BYTES_OUT: row["bytes_out"], FigureId.FORECAST: row["predicted_bytes"],
                FigureId.BURSTINESS: detail["burstiness"], FigureId.HOST_CPU: row["flags"] >> 8 & 0xFF,
                FigureId.HOST_MEMORY: row["flags"] >> 16 & 0xFF, FigureId.FLAGS: row["flags"] & 0xFF,
                FigureId.DROPS: row["drops"]}
    assert len(sweeps) >= 3


@pytest.mark.slow
def test_bus_shows_the_published_window_until_the_next_one():
    shots, regs = [], []

    async def software(ctx, bench, model):
        for _ in range(2):
            before = await bench.read(ctx, "analyzer", None, "sequence")
            while await bench.read(ctx, "analyzer", None, "sequence") == before:
                pass
            number = await bench.read(ctx, "analyzer", None, "sequence")
            rows = []
            names = [register.name for register in regmap.node("snapshot").registers]
            for tenant in range(CONFIG.tenants):
                rows.append([await bench.read(ctx, "snapshot", tenant, name) for name in names])
            regs.append([await bench.read(ctx, "analyzer", None, name)
                         for name in ("sequence", "start_lo", "start_hi", "cycles", "skipped")])
            shots.append((number, rows))

    _, model = observe(random_traffic(8, 900), windows=4, software=software)
    assert len(shots) == 2
    for (number, rows), registers in zip(shots, regs, strict=True):
        expected = model.windows[number - 1]
        assert [dict(zip(WORDS, row, strict=True)) for row in rows] == expected.rows
        assert registers == [number, expected.start, 0, expected.cycles, 0]


@pytest.mark.slow
def test_new_window_length_holds_from_the_next_boundary():
    async def software(ctx, bench, model):
        for length in (777, 100):
            await bench.write(ctx, length, "analyzer", None, "window")
            model.setting = max(length, WINDOW)
            assert await bench.read(ctx, "analyzer", None, "running") == model._length
            while bench.cycle < model._start + model._length - 1:
                await ctx.tick()
            number = len(model.windows)
            while len(model.windows) == number:
                await ctx.tick()
            assert await bench.read(ctx, "analyzer", None, "running") == model._length == model.setting

    bench, model = observe(random_traffic(9, 2500), windows=3, software=software)
    assert_same(bench.windows, model)
    assert {window.cycles for window in bench.windows} == {WINDOW, 777}


def test_histogram_counts_every_packet_that_left_whole():
    totals = {}

    async def software(ctx, bench, model):
        while len(model.windows) < 2:
            await ctx.tick()
        counted = {256 * tenant + number for tenant, number in model.histogram}
        for index in sorted(counted | set(range(0, 256 * CONFIG.tenants, 17))):
            totals[divmod(index, 256)] = await bench.read(ctx, "histogram", index)

    _, model = observe(random_traffic(10, 300, load=1.0), windows=6, software=software)
    assert {key: count for key, count in totals.items() if count} == dict(model.histogram)


def test_latency_sum_goes_beyond_32_bits_and_extremes_have_their_bins():
    latencies = [0, 7, 8, 15, 16, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
    cycles = [Cycle([Ingress(admit=(1, 1))] * 3, [Egress(leave=(1, 1, latency, False))] * 3, [None] * 2)
              for latency in latencies]
    totals = {}

    async def software(ctx, bench, model):
        while not model.windows:
            await ctx.tick()
        for number in [*range(20), 30, 31, 32, 231, 232, 239, 240, 255]:
            totals[1, number] = await bench.read(ctx, "histogram", 256 + number)

    bench, model = observe(iter(cycles), windows=4, software=software)
    assert_same(bench.windows, model)
    row = bench.windows[0].rows[1]
    assert row["flags"] >> 24 << 32 | row["latency_sum_low"] == 3 * sum(latencies)
    assert bench.windows[0].rows[1]["latency_max"] == 0xFFFFFFFF
    assert {key: count for key, count in totals.items() if count} == dict(model.histogram)


def test_allocation_decides_the_share_for_engine_bound():
    bench = Bench(CONFIG, WINDOW)

    async def software(ctx, bench, model):
        bus = bench.dut.allocation
        for tenant, slots in enumerate([0, 0b01, 0]):
            ctx.set(bus.tenant, tenant)
            ctx.set(bus.bank, 2)
            ctx.set(bus.row.slots, slots)
            ctx.set(bus.write, 1)
            await ctx.tick()
        ctx.set(bus.write, 0)
        ctx.set(bus.active_bank, 2)
        model.eligible = [0b10, 0b01, 0b10]

    cycle = Cycle(IDLE.ingress, IDLE.egress, [1, 2])
    bench, model = observe((cycle for _ in range(2000)), windows=4, software=software)
    assert_same(bench.windows[1:], model)
    assert [row["flags"] >> 3 & 1 for row in bench.windows[2].rows] == [0, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("base", [0xA5A5_5A5A_FFFF_FE00])
def test_header_has_start_epoch_and_tag_at_the_end_of_the_window(base):
    """Epoch and tag change in every cycle, and have all their bits inverted a window later."""
    rng, given, registers = random.Random(base), {}, []
    drawn = [(rng.getrandbits(8), rng.getrandbits(32)) for _ in range(WINDOW)]

    async def software(ctx, bench, model):
        while True:
            number, place = divmod(bench.cycle - base, WINDOW)
            epoch, tag = drawn[place] if number % 2 else (drawn[place][0] ^ 0xFF, drawn[place][1] ^ 0xFFFFFFFF)
            ctx.set(bench.dut.epoch, epoch)
            ctx.set(bench.dut.active_tag, tag)
            given[bench.cycle - base] = epoch, tag
            await ctx.tick()

    async def read(ctx):
        await ctx.tick().repeat(3 * WINDOW + 200)
        registers.extend([await bench.read(ctx, "analyzer", None, name) for name in ("start_lo", "start_hi", "cycles")])

    bench = Bench(CONFIG, WINDOW)
    bench.cycle = base
    bench.simulator.add_testbench(read, background=True)
    observe(iter([]), windows=3, bench=bench, software=software)
    for number, window in enumerate(bench.windows, 1):
        last = number * WINDOW - 1
        # The two test benches run in one cycle in either order.
        assert (window.extra["epoch"], window.extra["tag"]) in [given[last + late] for late in (-1, 0, 1)]
        assert (window.number, window.start, window.cycles) == (
            number, base + (number - 1) * WINDOW if number > 1 else 0, WINDOW)
    assert registers == [bench.windows[2].start & 0xFFFFFFFF, bench.windows[2].start >> 32, WINDOW]


@pytest.mark.slow
def test_latency_of_any_size_is_compared_with_the_objective_exactly():
    """Just below it, equal, above, and off by any one bit."""
    slos = [0xFFFFFFFE, 0x80000000, 0x1234_5678]
    latencies = [[slo - 1, slo, slo + 1, *(slo ^ 1 << bit for bit in range(32))] for slo in slos]
    cycles = [Cycle([Ingress(admit=(tenant, 1)) for tenant in order],
                    [Egress(leave=(tenant, 1, latencies[tenant][number], False)) for tenant in order], [None] * 2)
              for number in range(35) for order in ([0, 1, 2], [1, 2, 0])]
    bench, model = observe(iter(cycles), windows=2, slos=slos)
    assert_same(bench.windows, model)
    misses = [sum(window.rows[tenant]["slo_misses"] for window in bench.windows) for tenant in range(3)]
    assert misses == [2 * sum(latency > slo for latency in mine) for slo, mine in zip(slos, latencies, strict=True)]


async def allocate(ctx, bench, rates):
    """Give tenants these rates: a row each, written to a bank that becomes the active one."""
    bus = bench.dut.allocation
    for tenant, rate in enumerate(rates):
        ctx.set(bus.tenant, tenant)
        ctx.set(bus.bank, 1)
        ctx.set(bus.row, {"rate": rate, "slots": 0})
        ctx.set(bus.write, 1)
        await ctx.tick()
    ctx.set(bus.write, 0)
    ctx.set(bus.active_bank, 1)


@pytest.mark.slow
def test_objective_of_any_single_bit_is_an_objective():
    """Each in turn for tenant 1, then a packet that keeps it and one that does not at every output."""
    due = []

    async def software(ctx, bench, model):
        for slo in (1 << bit for bit in range(32)):
            await bench.write(ctx, slo, "objective", 1, "slo")
            model._slo[1] = slo
            due.extend(Cycle([Ingress(admit=(1, 1))] * 3, [Egress(leave=(1, 1, latency, False))] * 3, [None] * 2)
                       for latency in (slo, slo + 1))
            while due:
                await ctx.tick()
            await ctx.tick().repeat(3)   # until the last packet has been compared

    def traffic():
        while True:
            yield due.pop(0) if due else IDLE

    bench, model = observe(traffic(), windows=2, software=software, slos=list(SLO))
    assert_same(bench.windows, model)
    assert sum(window.rows[1]["slo_misses"] for window in bench.windows) == 3 * 32


@pytest.mark.slow
def test_beats_that_left_are_bytes_rounded_up_and_those_of_the_busiest_output_count():
    """Packets of all lengths, a tenant an output; in one window just 7/8 of the rate, in the next a byte more."""
    lengths = [8, 16, 1, 7, 24, 32, 64, 128, 256, 512, 1024]
    beats = sum(-(-length // 8) for length in lengths)
    rate = -(-beats * 8 * FULL_RATE // (7 * WINDOW))   # the least of which so many beats are not more than 7/8
    assert (beats + 1) * 8 * FULL_RATE > 7 * WINDOW * rate
    bench, events = Bench(CONFIG, WINDOW), {}
    for window, extra in ((1, 0), (2, 1)):
        # All in one part, and less by the output beside.
        for index, length in enumerate(lengths):
            admitted = [Ingress(admit=(tenant, 1)) for tenant in range(3)]
            longer = length + (extra if index == len(lengths) - 1 else 0)
            for place, size, shift in ((4 + index, longer, 0), (18 + index, 8, 1)):
                events[window * WINDOW + place] = Cycle(
                    admitted, [Egress(leave=((port + shift) % 3, size, 5, False)) for port in range(3)], [None] * 2)

    async def software(ctx, bench, model):
        bus = bench.dut.allocation
        ctx.set(bus.bank, 1)
        ctx.set(bus.row, {"rate": rate, "slots": 0})
        ctx.set(bus.write, 1)
        for tenant in range(3):
            ctx.set(bus.tenant, tenant)
            await ctx.tick()
        ctx.set(bus.write, 0)
        ctx.set(bus.active_bank, 1)
        model.rate, model.eligible = [rate] * 3, [0b11] * 3

    def traffic():
        while True:
            yield events.get(bench.cycle, IDLE)

    bench, model = observe(traffic(), windows=3, bench=bench, software=software)
    assert_same(bench.windows, model)
    assert [[row["flags"] >> 4 & 1 for row in window.rows] for window in bench.windows] == [[0] * 3, [0] * 3, [1] * 3]


@pytest.mark.slow
def test_a_backlogged_tenant_is_bound_by_any_full_port_that_it_uses():
    """A window for each port: one tenant fills its input, another its output, a third waits without either."""
    bench = Bench(CONFIG, WINDOW)

    def traffic():
        while True:
            full = max(bench.cycle // WINDOW - 1, 0) % 3
            few = bench.cycle % 16 == 0
            ingress, egress = [Ingress(stalled=tenant) for tenant in range(3)], [IDLE_EGRESS] * 3
            ingress[full].admit = 0, 64
            if few:
                ingress[full - 1].admit, ingress[full - 2].admit = (1, 8), (2, 8)
                egress[full], egress[full - 1] = Egress(leave=(1, 4095, 5, False)), Egress(leave=(2, 8, 5, False))
            yield Cycle(ingress, egress, [None] * 2)

    bench, model = observe(traffic(), windows=4, bench=bench)
    assert_same(bench.windows, model)
    for window in bench.windows[1:]:
        assert [row["flags"] >> 4 & 3 for row in window.rows] == [0b01, 0b01, 0b10]


@pytest.mark.parametrize(("block", "index", "register", "value"), [
    ("snapshot", 0, "drops", 1), ("snapshot", 3, "drops", None), ("detail", 0, "strided", 1),
    ("detail", 3, "strided", None), ("objective", 3, "slo", None),
    ("objective", 3, "slo", 5), ("histogram", 0, None, 1), ("histogram", 3 * 256, None, None)])
def test_access_without_a_register_is_an_error(block, index, register, value):
    bench = Bench(CONFIG, WINDOW)
    answers = []

    async def software(ctx):
        answers.append(await access(ctx, bench.dut.bus, address(block, index, register), value))

    bench.simulator.add_testbench(software)
    bench.simulator.run()
    assert answers[0][0] == 1


def test_device_without_histograms_refuses_their_addresses_and_keeps_its_windows():
    bench = Bench(replace(CONFIG, histograms=False), WINDOW)
    answers = []

    async def software(ctx):
        for place in (address("histogram", 0, None), address("snapshot", 0, "packets_in")):
            answers.append((await access(ctx, bench.dut.bus, place, None))[0])

    bench.simulator.add_testbench(software)
    bench.simulator.run()
    assert answers == [1, 0]


def test_device_without_access_patterns_and_forecasts_shows_zeros_there_and_the_rest_as_ever():
    lean = replace(CONFIG, access_patterns=False, forecasts=False)
    details = []

    async def software(ctx, bench, model):
        while not bench.windows:
            await ctx.tick()
        details.append(await bench.read(ctx, "detail", 1, "strided"))

    bench, model = observe(random_traffic(11, 700), windows=2, config=lean, software=software)
    rows = [row for window in model.windows for row in window.rows]
    for name in ("sequential", "predicted_bytes"):
        assert any(row[name] for row in rows), "the traffic would show it"
    for row in rows:
        row |= {"sequential": 0, "predicted_bytes": 0, "flags": row["flags"] & ~PATTERN_FLAGS}
    assert_same(bench.windows, model)
    assert details == [0]


def test_objective_bytes_are_written_one_by_one():
    bench = Bench(CONFIG, WINDOW)
    read = []

    async def software(ctx):
        place = address("objective", 2, "slo")
        await access(ctx, bench.dut.bus, place, 0x11223344)
        await access(ctx, bench.dut.bus, place, 0xAABBCCDD, 0b0110)
        await access(ctx, bench.dut.bus, place + 4, 0xFFFFBEEF, 0b0001)
        read.append(await bench.read(ctx, "objective", 2, "slo"))
        read.append(await bench.read(ctx, "objective", 2, "host"))
        read.append(await bench.read(ctx, "objective", 1, "slo"))

    bench.simulator.add_testbench(software)
    bench.simulator.run()
    assert read == [0x11BBCC44, 0xEF, 0]


def test_shortest_window_leaves_time_for_the_snapshot_of_many_tenants():
    config = replace(CONFIG, ports=2, tenants=24)
    length = Analyzer(config).shortest_window
    assert length > 1024, "the snapshot decides"
    traffic = Traffic(config, 3, load=0.3)
    bench, model = observe((traffic.cycle() for _ in range(2 * length)), windows=2, bench=Bench(config, length),
                           config=config)
    assert_same(bench.windows, model)


def test_first_window_is_the_reset_value_of_the_register():
    window = next(register for register in regmap.node("analyzer").registers if register.name == "window")
    assert window.fields[0].reset == RESET_WINDOW
    assert Analyzer(DeviceConfig()).shortest_window == 1024


def test_too_short_a_window_is_refused():
    with pytest.raises(ValueError, match="shortest_window must be at least"):
        Analyzer(CONFIG, shortest_window=100)
