"""Snapshot: turns the totals of a complete window into the 16 words a tenant that software sees.

Contract: `complete` begins; for each tenant the totals are asked for with `row_tenant`, then 16 words are
written, one a cycle. When all are there the bank is published in one cycle: `published` strobes, and `bus`
(block `snapshot[t]`, read only, two cycles an access) answers from the new window until the next one is
published. `word_valid`, `word_index` and `word` show each word as it is written, for the push. `complete` to
`published` takes 2 + 22 cycles a tenant at most, and must be over before the next `complete`.
"""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..csr.bus import CsrSignature

__all__ = ["FIGURES", "ROW_WORDS", "SnapshotWriter"]

ROW_WORDS = 16

#: Words 0..12 of a row, totals that are passed on as they are (None: the peak of the queue depth).
FIGURES = ("bytes_in", "packets_in", "requests", "sequential", "bytes_out", "packets_out", "drops", None,
           "backpressure_cycles", "engine_cycles", "latency_sum", "latency_max", "slo_misses")


class SnapshotWriter(wiring.Component):
    """Writes and serves the snapshot. The inputs `row_*`, `depth`, ... follow `row_tenant` within two cycles.

    predict: strobe for the trend, whose answer `predicted` comes three cycles later.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "bus": In(CsrSignature(16)),
            "complete": In(1),
            "published": Out(1),
            "busy": Out(1),
            "row_tenant": Out(range(config.tenants)),
            **{f"row_{name}": In(32) for name in FIGURES if name},
            "row_burst": In(32),
            "depth": In(16),
            "peak": In(16),
            "flags": In(4),
            "cpu": In(8),
            "memory": In(8),
            "predict": Out(1),
            "predicted": In(32),
            "word_valid": Out(1),
            "word_index": Out(range(config.tenants * ROW_WORDS)),
            "word": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        wait = Signal(3)
        number = Signal(range(ROW_WORDS))
        bank = Signal()  # the published one; the other is written
        m.d.comb += self.word_index.eq(Cat(number, self.row_tenant))

        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            # Waiting for a window to be complete.
            with m.State("IDLE"):
                m.d.sync += [self.row_tenant.eq(0), wait.eq(0)]
                with m.If(self.complete):
                    m.next = "LOAD"
            # The tenant's totals arrive (2 cycles), then the trend computes (3 cycles).
            with m.State("LOAD"):
                m.d.comb += self.predict.eq(wait == 2)
                m.d.sync += [wait.eq(wait + 1), number.eq(0)]
                with m.If(wait == 5):
                    m.next = "WRITE"
            # One word of the row a cycle.
            with m.State("WRITE"):
                m.d.comb += self.word_valid.eq(1)
                m.d.sync += [number.eq(number + 1), wait.eq(0)]
                with m.If(number == ROW_WORDS - 1):
                    m.d.sync += self.row_tenant.eq(self.row_tenant + 1)
                    m.next = "LOAD"
                    with m.If(self.row_tenant == self._config.tenants - 1):
                        m.next = "PUBLISH"
            # All words are written: everybody sees them from the next cycle on.
            with m.State("PUBLISH"):
                m.d.comb += self.published.eq(1)
                m.d.sync += bank.eq(~bank)
                m.next = "IDLE"

        self._select_word(m, number)
        self._serve(m, bank)
        return m

    def _select_word(self, m, number):
        """`word`, by its place in the row."""
        burst = Mux(self.row_burst[6:] > 0xFFFF, 0xFFFF, self.row_burst[6:22])
        words = [getattr(self, f"row_{name}") if name else self.peak for name in FIGURES]
        words += [
            Cat(self.depth, burst),
            self.predicted,
            Cat(self.flags, C(0, 4), self.cpu, self.memory),
        ]
        with m.Switch(number):
            for index, word in enumerate(words):
                with m.Case(index):
                    m.d.comb += self.word.eq(word)

    def _serve(self, m, bank):
        """The two banks, and reads of the published one."""
        bits = (self._config.tenants * ROW_WORDS - 1).bit_length()
        m.submodules.store = store = memory.Memory(shape=32, depth=2 << bits, init=[])
        write, read = store.write_port(), store.read_port()
        bus, asked = self.bus, Signal()
        m.d.sync += asked.eq(bus.valid & ~asked)
        m.d.comb += [
            write.addr.eq(Cat(self.word_index, ~bank)),
            write.data.eq(self.word),
            write.en.eq(self.word_valid),
            read.addr.eq(Cat(bus.address[:bits], bank)),
            read.en.eq(bus.valid & ~asked),
            bus.ready.eq(bus.valid & asked),
            bus.r_data.eq(read.data),
            bus.error.eq(bus.write | (bus.address[4:10] >= self._config.tenants)),
        ]
