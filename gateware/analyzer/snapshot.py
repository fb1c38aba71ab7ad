"""Snapshot: turns the totals of a complete window into what software and the reflex rules see.

Contract: `complete` begins; for each tenant the totals are asked for with `row_tenant`, then its values are passed on,
one a cycle: to the 16 words that are pushed (`word_valid`, `word_index`, `word`), to the words that are only read
(block `detail[t]`), to the sweep of `figures` (see `figures.py`), or to several of them, as `_steps` says. When all are
there both banks are published in one cycle: `published` strobes, and `bus` and `detail` (read only, two cycles an
access) answer from the new window until the next one is published. `complete` to `published` takes 2 + `ROW_CYCLES`
cycles a tenant at most, and must be over before the next window ends.
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..csr.bus import CsrSignature
from .aggregation import Rule
from .depth import Samples
from .divider import DIVIDEND_BITS, Divider
from .figures import AnalyzerFigures, FigureId
from .flags import FlagBits

__all__ = ["DETAIL_WORDS", "ROW_CYCLES", "ROW_WORDS", "SnapshotWriter"]

ROW_WORDS = 16
DETAIL_WORDS = 4
ROW_CYCLES = DIVIDEND_BITS + 9  # totals, division, and the steps that need its results
_LOADED = 2  # cycles until a row's totals are there


class Quotients(data.Struct):
    """What is divided for each tenant; valid from `done` on. See `FigureId` for the units."""

    done: 1
    latency_mean: 32
    depth_mean: 32
    burstiness: 32


class SnapshotWriter(wiring.Component):
    """Writes and serves the snapshot. The inputs `row_*`, `depth`, ... follow `row_tenant` within two cycles.

    predict: strobe for the trend, whose answer `predicted` comes while the divisions are under way.
    """

    def __init__(self, config: DeviceConfig, rules: dict[str, Rule]):
        self._config = config
        super().__init__({
            "bus": In(CsrSignature(16)),
            "detail": In(CsrSignature(16)),
            "complete": In(1),
            "published": Out(1),
            "row_tenant": Out(range(config.tenants)),
            **{f"row_{name}": In(rule.width) for name, rule in rules.items()},
            "row_burst": In(32),
            "row_squares": In(40),
            "depth": In(16),
            "peak": In(16),
            "sampled": In(Samples),
            "flags": In(FlagBits),
            "cpu": In(8),
            "memory": In(8),
            "predict": Out(1),
            "predicted": In(32),
            "word_valid": Out(1),
            "word_index": Out(range(config.tenants * ROW_WORDS)),
            "word": Out(32),
            "figures": Out(AnalyzerFigures(config)),
        })

    def elaborate(self, platform):
        m = Module()
        wait = Signal(range(_LOADED + 1))
        bank = Signal()  # the published one; the other is written
        quotients = self._divide(m, self.predict)
        steps, first_computed = self._steps(quotients)
        step = Signal(range(len(steps)))
        passes = Signal()

        with m.FSM():
            # Waiting for a window to be complete.
            with m.State("IDLE"):
                m.d.sync += [self.row_tenant.eq(0), wait.eq(0)]
                m.d.comb += self.figures.start.eq(self.complete)
                with m.If(self.complete):
                    m.next = "LOAD"
            # The tenant's totals arrive; the divisions and the trend begin.
            with m.State("LOAD"):
                m.d.comb += self.predict.eq(wait == _LOADED)
                m.d.sync += [wait.eq(wait + 1), step.eq(0)]
                with m.If(wait == _LOADED):
                    m.next = "PASS"
            # One value a cycle; those that are computed meanwhile when they are there.
            with m.State("PASS"):
                m.d.comb += passes.eq((step != first_computed) | quotients.done)
                m.d.sync += [step.eq(step + passes), wait.eq(0)]
                with m.If(step == len(steps) - 1):
                    m.d.sync += self.row_tenant.eq(self.row_tenant + 1)
                    m.next = "LOAD"
                    with m.If(self.row_tenant == self._config.tenants - 1):
                        m.next = "PUBLISH"
            # All words are written: everybody sees them from the next cycle on.
            with m.State("PUBLISH"):
                m.d.comb += [self.published.eq(1), self.figures.end.eq(1)]
                m.d.sync += bank.eq(~bank)
                m.next = "IDLE"

        detail_index, detail_valid = self._select(m, step, steps, passes)
        self._serve(m, self.bus, bank, "words", ROW_WORDS, self.word_index, self.word_valid)
        self._serve(m, self.detail, bank, "details", DETAIL_WORDS, detail_index, detail_valid)
        return m

    def _divide(self, m, begin):
        """The three divisions, all at once, of the totals that are there with `begin`."""
        quotients, left = Signal(Quotients), Signal(range(DIVIDEND_BITS + 2))
        squares = Signal(32)
        for name, dividend, divisor, quotient in (
                ("latency", self.row_latency_sum, self.row_packets_out, quotients.latency_mean),
                ("depth", self.sampled.depth << 8, self.sampled.count, quotients.depth_mean),
                ("squares", self.row_squares << 4, self.row_packets_in, squares)):
            m.submodules[f"divide_{name}"] = divider = Divider()
            m.d.comb += [
                divider.start.eq(begin),
                divider.dividend.eq(dividend),
                divider.divisor.eq(divisor),
                quotient.eq(divider.quotient),
            ]
        # Variance over mean of n numbers: the sum of squares over the sum, less the sum over n. Here n = 16, in 1/16.
        # It is ready a cycle after the divisions, as is its turn to be passed on.
        burstiness = Signal(32)
        m.d.comb += quotients.burstiness.eq(burstiness)
        m.d.sync += burstiness.eq(Mux(squares > self.row_packets_in, squares - self.row_packets_in, 0))
        with m.If(begin):
            m.d.sync += left.eq(DIVIDEND_BITS + 1)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        m.d.comb += quotients.done.eq(left == 0)
        return quotients

    def _steps(self, quotients):
        """What is passed on: (value, its word of the snapshot, of the detail, its figure); and the first that is
        computed only now."""
        burst = Mux(self.row_burst[6:] > 0xFFFF, 0xFFFF, self.row_burst[6:22])
        burstiness = Mux(quotients.burstiness > 0xFFFF, 0xFFFF, quotients.burstiness[:16])
        totals = [
            (self.row_bytes_in, 0, None, FigureId.BYTES_IN),
            (self.row_packets_in, 1, None, FigureId.PACKETS_IN),
            (self.row_requests, 2, None, FigureId.REQUESTS),
            (self.row_sequential, 3, None, None),
            (self.row_strided, None, 0, None),
            (self.row_bytes_out, 4, None, FigureId.BYTES_OUT),
            (self.row_packets_out, 5, None, None),
            (self.row_drops, 6, None, FigureId.DROPS),
            (self.row_backpressure_cycles, 8, None, FigureId.STALLED),
            (self.row_engine_cycles, 9, None, FigureId.BUSY),
            (self.row_latency_sum[:32], 10, None, None),
            (self.row_latency_max, 11, None, FigureId.LATENCY_MAX),
            (self.row_slo_misses, 12, None, FigureId.MISSED),
            (Cat(self.depth, burst), 13, None, None),
            (Cat(self.flags, self.cpu, self.memory, self.row_latency_sum[32:]), 15, None, None),
            (self.flags.as_value(), None, None, FigureId.FLAGS),
            (self.cpu, None, None, FigureId.HOST_CPU),
            (self.memory, None, None, FigureId.HOST_MEMORY),
            (self.peak, None, None, FigureId.DEPTH_MAX),
        ]
        return [
            *totals,
            (self.predicted, 14, None, FigureId.FORECAST),
            (Cat(self.peak, burstiness), 7, None, None),
            (quotients.burstiness, None, 1, FigureId.BURSTINESS),
            (quotients.depth_mean, None, 2, FigureId.DEPTH_MEAN),
            (quotients.latency_mean, None, 3, FigureId.LATENCY_MEAN),
        ], len(totals)

    def _select(self, m, step, steps, passes):
        """The value of this step, to where it belongs; returns its place in the detail, and whether it has one."""
        place, detail_place, detail_valid = Signal(range(ROW_WORDS)), Signal(range(DETAIL_WORDS)), Signal()
        m.d.comb += [
            self.figures.tenant.eq(self.row_tenant),
            self.figures.value.eq(self.word),
            self.word_index.eq(Cat(place, self.row_tenant)),
        ]
        with m.Switch(step):
            for index, (value, word, detail, figure) in enumerate(steps):
                with m.Case(index):
                    m.d.comb += self.word.eq(value)
                    if word is not None:
                        m.d.comb += [place.eq(word), self.word_valid.eq(passes)]
                    if detail is not None:
                        m.d.comb += [detail_place.eq(detail), detail_valid.eq(passes)]
                    if figure is not None:
                        m.d.comb += [self.figures.figure.eq(figure), self.figures.valid.eq(passes)]
        return Cat(detail_place, self.row_tenant), detail_valid

    def _serve(self, m, bus, bank, name, words, index, valid):
        """One block in two banks, and reads of the published one."""
        bits = (self._config.tenants * words - 1).bit_length()
        row_bits = (words - 1).bit_length()
        m.submodules[name] = store = memory.Memory(shape=32, depth=2 << bits, init=[])
        write, read = store.write_port(), store.read_port()
        asked = Signal(name=f"asked_{name}")
        m.d.sync += asked.eq(bus.valid & ~asked)
        m.d.comb += [
            write.addr.eq(Cat(index, ~bank)),
            write.data.eq(self.word),
            write.en.eq(valid),
            read.addr.eq(Cat(bus.address[:bits], bank)),
            read.en.eq(bus.valid & ~asked),
            bus.ready.eq(bus.valid & asked),
            bus.r_data.eq(read.data),
            bus.error.eq(bus.write | (bus.address[row_bits:row_bits + 6] >= self._config.tenants)),
        ]
