"""The snapshot writer by itself: totals of every size become words, details and figures of one window."""

import random

import pytest
from amaranth.sim import Simulator

from gateware.analyzer.analyzer import RULES
from gateware.analyzer.figures import FigureId
from gateware.analyzer.snapshot import ROW_CYCLES, SnapshotWriter
from gateware.config import DeviceConfig
from tests.gateware.csr.initiator import access

CONFIG = DeviceConfig(ports=2, tenants=3)
FULL, WORDS, DETAILS = 0xFFFFFFFF, 16, 4
WIDTHS = {**{f"row_{name}": rule.width for name, rule in RULES.items()}, "row_burst": 32, "row_squares": 40,
          "depth": 16, "peak": 16, "flags": 8, "cpu": 8, "memory": 8, "predicted": 32}
SAMPLED = {"count": 32, "depth": 36, "held": 32}


def random_row(rng):
    """Inputs of one tenant: each of any size, or the largest; burst and burstiness often near the most that is told."""
    def drawn(widths):
        return {name: rng.choice([rng.getrandbits(rng.randint(1, width)), rng.getrandbits(width), (1 << width) - 1])
                for name, width in widths.items()}
    row = {**drawn(WIDTHS), "sampled": drawn(SAMPLED)}
    if rng.random() < 0.6:
        near = [rng.choice([0xFFFF + rng.randint(-1, 1), rng.randint(0xF000, 0x10FFF), 1 << rng.randint(16, 25)])
                for _ in range(2)]
        packets = rng.getrandbits(rng.randint(1, 18)) or 1
        row |= {"row_burst": near[0] << 6 | rng.getrandbits(6), "row_packets_in": packets,
                "row_squares": -(-(near[1] + packets) * packets // 16)}
    return row


def quotient(dividend, divisor):
    return min(dividend // divisor, FULL) if divisor else 0


def expected(row):
    """Words of the snapshot, of the detail, and the sweep's values by figure."""
    total = {name.removeprefix("row_"): value for name, value in row.items()}
    burstiness = max(quotient(total["squares"] << 4, total["packets_in"]) - total["packets_in"], 0)
    depth_mean = quotient(total["sampled"]["depth"] << 8, total["sampled"]["count"])
    latency_mean = quotient(total["latency_sum"], total["packets_out"])
    words = [
        total["bytes_in"], total["packets_in"], total["requests"], total["sequential"], total["bytes_out"],
        total["packets_out"], total["drops"], total["peak"] | min(burstiness, 0xFFFF) << 16,
        total["backpressure_cycles"], total["engine_cycles"], total["latency_sum"] & FULL, total["latency_max"],
        total["slo_misses"], total["depth"] | min(total["burst"] >> 6, 0xFFFF) << 16, total["predicted"],
        total["flags"] | total["cpu"] << 8 | total["memory"] << 16 | total["latency_sum"] >> 32 << 24]
    figures = {
        FigureId.BYTES_IN: words[0], FigureId.PACKETS_IN: words[1], FigureId.REQUESTS: words[2],
        FigureId.DEPTH_MAX: total["peak"], FigureId.DEPTH_MEAN: depth_mean, FigureId.STALLED: words[8],
        FigureId.BUSY: words[9], FigureId.LATENCY_MEAN: latency_mean, FigureId.LATENCY_MAX: words[11],
        FigureId.MISSED: words[12], FigureId.BYTES_OUT: words[4], FigureId.FORECAST: words[14],
        FigureId.BURSTINESS: burstiness, FigureId.HOST_CPU: total["cpu"], FigureId.HOST_MEMORY: total["memory"],
        FigureId.FLAGS: total["flags"], FigureId.DROPS: words[6]}
    return words, [total["strided"], burstiness, depth_mean, latency_mean], figures


class Writer:
    """A writer whose inputs follow `row_tenant` two cycles later, noise before; what it passes on by window."""

    def __init__(self, windows, seed):
        self.dut, self._windows, self._rng = SnapshotWriter(CONFIG, RULES), windows, random.Random(seed)
        self.pushed, self.swept, self.durations = [], [], []
        self.published = 0
        self.simulator = Simulator(self.dut)
        self.simulator.add_clock(1e-8)
        self.simulator.add_testbench(self._drive)

    async def _drive(self, ctx):
        for rows in self._windows:
            self.pushed.append({})
            self.swept.append([])
            ctx.set(self.dut.complete, 1)
            since, cycles, before = 0, 0, None
            while True:
                tenant = ctx.get(self.dut.row_tenant)
                since, before = (since + 1 if tenant == before else 0), tenant
                row = rows[tenant % CONFIG.tenants]
                if since in (0, 2):
                    self._set(ctx, row if since else random_row(self._rng))
                if since == 2:   # the forecast comes while the divisions are under way
                    ctx.set(self.dut.predicted, self._rng.getrandbits(32))
                if since == 40:
                    ctx.set(self.dut.predicted, row["predicted"])
                self._take(ctx)
                published = ctx.get(self.dut.published)
                await ctx.tick()
                ctx.set(self.dut.complete, 0)
                cycles += 1
                if published:
                    break
            self.published += 1
            self.durations.append(cycles)
            for _ in range(self._rng.randrange(150)):  # until the next window ends
                self._take(ctx)
                await ctx.tick()

    def _set(self, ctx, row):
        for name, value in row.items():
            port = getattr(self.dut, name)
            ctx.set(port.as_value() if name == "flags" else port, value)

    def _take(self, ctx):
        dut = self.dut
        if ctx.get(dut.word_valid):
            index = ctx.get(dut.word_index)
            assert index not in self.pushed[-1], "a word is passed on once"
            self.pushed[-1][index] = ctx.get(dut.word)
        figures = dut.figures
        if ctx.get(figures.start) or ctx.get(figures.end):
            self.swept[-1].append("start" if ctx.get(figures.start) else "end")
            assert not ctx.get(figures.valid)
        if ctx.get(figures.valid):
            self.swept[-1].append((ctx.get(figures.tenant), ctx.get(figures.figure), ctx.get(figures.value)))


def windows_of(seed, count):
    rng = random.Random(seed)
    return [[random_row(rng) for _ in range(CONFIG.tenants)] for _ in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_totals_of_every_size_are_passed_on_as_words_and_figures_of_their_window(seed):
    windows = windows_of(seed, 8)
    writer = Writer(windows, seed)
    writer.simulator.run()
    for rows, words, sweep in zip(windows, writer.pushed, writer.swept, strict=True):
        wanted = [expected(row) for row in rows]
        assert words == dict(enumerate(word for row, _, _ in wanted for word in row))
        assert (sweep[0], sweep[-1]) == ("start", "end")
        assert [tenant for tenant, _, _ in sweep[1:-1]] == sorted(tenant for tenant, _, _ in sweep[1:-1])
        assert len(sweep) == 2 + CONFIG.tenants * len(FigureId)
        assert {(tenant, figure): value for tenant, figure, value in sweep[1:-1]} == {
            (tenant, figure): value for tenant, (_, _, row) in enumerate(wanted) for figure, value in row.items()}
    assert max(writer.durations) <= 2 + ROW_CYCLES * CONFIG.tenants


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3])
def test_bus_answers_from_the_published_window_while_the_next_one_is_written(seed):
    windows = windows_of(seed, 8)
    writer = Writer(windows, seed)
    rng, seen = random.Random(seed), set()

    async def read(ctx):
        await ctx.tick().until(writer.dut.published)
        while writer.published < len(windows):
            detail, tenant = rng.random() < 0.3, rng.randrange(CONFIG.tenants)
            place = rng.randrange(DETAILS if detail else WORDS)
            before = writer.published
            error, value, cycles = await access(
                ctx, writer.dut.detail if detail else writer.dut.bus,
                4 * ((DETAILS if detail else WORDS) * tenant + place))
            assert (error, cycles) == (0, 2)
            if before == writer.published:   # else it is of either
                assert value == expected(windows[before - 1][tenant])[detail][place]
                seen.add((detail, tenant, place))

    writer.simulator.add_testbench(read, background=True)
    writer.simulator.run()
    assert len(seen) == CONFIG.tenants * (WORDS + DETAILS), "the stimulus misses a case"


@pytest.mark.parametrize("name", ["bus", "detail"])
def test_writes_and_tenants_that_do_not_exist_are_refused(name):
    writer, answers = Writer([], 0), []
    bus, words = getattr(writer.dut, name), WORDS if name == "bus" else DETAILS

    async def software(ctx):
        for tenant in (*range(CONFIG.tenants), CONFIG.tenants, 4, 8, 16, 32, 63):
            answers.append((tenant, None, (await access(ctx, bus, 4 * words * tenant))[0]))
            answers.append((tenant, 1, (await access(ctx, bus, 4 * words * tenant, 1))[0]))

    writer.simulator.add_testbench(software)
    writer.simulator.run()
    assert all(error == (written is not None or tenant >= CONFIG.tenants) for tenant, written, error in answers)
