"""`Scope`: a logic analyzer in the device: samples its probes in every cycle and keeps what was around a trigger.

`Matcher` compares each sample with four patterns, `Sequence` finds the trigger among the matches, and `Recorder` keeps
the samples. Software writes patterns, conditions and limits, arms, and reads the rows when the capture is
complete; the block tells by itself what its probes are (`scope_description`). Serves the blocks `scope`,
`scope_pattern`, `scope_description` and `scope_rows` of the register map.

An access to a memory takes three cycles, to a row four. Refused with an error: reads of `scope_pattern`, writes of the
other two, rows while the capture is not complete, and what is beyond the tables, rows and words that there are.
"""

from collections.abc import Sequence as Ordered

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In

from morphnic.errors import InputError

from ..csr.bus import CsrSignature
from ..csr.registers import RegisterBlock
from ..csr.regmap import node
from .matcher import LATENCY as MATCHER_LATENCY
from .matcher import TABLE_WORDS, Matcher
from .probes import Probe, describe
from .recorder import RUN_BITS, Recorder, State
from .sequence import LATENCY as SEQUENCE_LATENCY
from .sequence import STAGES, Sequence

__all__ = ["LATENCY", "Scope"]

WORD = 32
#: A sample of cycle *t* is the recorder's, with the trigger, in cycle *t* + LATENCY.
LATENCY = MATCHER_LATENCY + SEQUENCE_LATENCY


class Scope(wiring.Component):
    """Logic analyzer over `probes`, with a buffer of `rows` rows.

    sampled: the probes' signals, the first in the lowest bits. cycle: the device cycle. bus: registers and memories.
    Raises `InputError` for more rows than the register map has room for.
    """

    def __init__(self, probes: Ordered[Probe], rows: int):
        if not probes:
            raise ValueError("probes must be at least one")
        self._probes, self._rows = list(probes), rows
        self._width = sum(len(probe.signal) for probe in probes)
        words = node("scope_rows").words
        if rows * self.row_words > words:
            raise InputError(f"scope_rows must be at most {words // self.row_words} with {self._width} bits of "
                             f"probes, not {rows!r}")
        super().__init__({
            "bus": In(CsrSignature(16)),
            "sampled": In(self._width),
            "cycle": In(64),
        })

    @property
    def row_words(self) -> int:
        """Words of a row on the bus, a power of two."""
        return 1 << (-(-(self._width + RUN_BITS) // WORD) - 1).bit_length()

    def elaborate(self, platform):
        m = Module()
        m.submodules.matcher = matcher = Matcher(self._width)
        m.submodules.sequence = sequence = Sequence()
        m.submodules.recorder = recorder = Recorder(self._width, self._rows)
        description = describe(self._probes)
        text = [int.from_bytes(description[start:start + 4], "little") for start in range(0, len(description), 4)]
        m.submodules.registers = registers = RegisterBlock({
            "scope": None, "scope_pattern": matcher.tables * TABLE_WORDS, "scope_description": len(text),
            "scope_rows": self._rows * self.row_words})
        wiring.connect(m, wiring.flipped(self.bus), registers.bus)
        # The sequence decides a cycle before the recorder has the sample.
        m.d.sync += recorder.arm.eq(registers.scope_control_arm)
        sample, changed = matcher.sample, matcher.changed
        for _ in range(SEQUENCE_LATENCY):
            delayed, delayed_changed = Signal.like(sample), Signal()
            m.d.sync += [delayed.eq(sample), delayed_changed.eq(changed)]
            sample, changed = delayed, delayed_changed
        m.d.comb += [
            matcher.probes.eq(self.sampled),
            sequence.restart.eq(registers.scope_control_arm),
            sequence.searching.eq(recorder.arm | (recorder.state == State.WAITING)),
            sequence.matches.eq(matcher.matches),
            sequence.last.eq(registers.scope_last_stage),
            recorder.sample.eq(sample),
            recorder.changed.eq(changed),
            recorder.trigger.eq(sequence.trigger),
            recorder.cycle.eq(self.cycle - LATENCY),
            recorder.stop.eq(registers.scope_control_stop),
            recorder.before.eq(registers.scope_before_rows),
            recorder.after.eq(registers.scope_after_cycles),
        ]
        for stage in range(STAGES):
            m.d.comb += [
                sequence.condition[stage].eq(getattr(registers, f"scope_stage{stage}_condition")),
                sequence.count[stage].eq(getattr(registers, f"scope_stage{stage}_count")),
            ]
        self._tell(m, registers, sequence, recorder, len(description))
        self._serve_patterns(m, registers.scope_pattern, matcher)
        self._serve_description(m, registers.scope_description, text)
        self._serve_rows(m, registers.scope_rows, recorder)
        return m

    def _tell(self, m, registers, sequence, recorder, description):
        """What software only reads."""
        captures = Signal(32)
        with m.If(registers.scope_control_arm):
            m.d.sync += captures.eq(captures + 1)
        m.d.comb += [
            registers.scope_status_state.eq(Mux(recorder.arm, State.WAITING, recorder.state)),
            registers.scope_status_triggered.eq(recorder.triggered & ~recorder.arm),
            registers.scope_status_stage.eq(sequence.stage),
            registers.scope_captures_value.eq(captures),
            registers.scope_length_rows.eq(recorder.length),
            registers.scope_first_row.eq(recorder.first),
            registers.scope_trigger_row.eq(recorder.trigger_row),
            registers.scope_end_lo_value.eq(recorder.end[:32]),
            registers.scope_end_hi_value.eq(recorder.end[32:]),
            registers.scope_shape_bits.eq(self._width),
            registers.scope_shape_rows.eq(self._rows),
            registers.scope_description_bytes.eq(description),
        ]

    def _serve_patterns(self, m, port, matcher):
        second = Signal()
        m.d.sync += second.eq(port.valid & ~second)
        m.d.comb += [
            matcher.write.eq(port.valid & port.write & port.w_mask[0] & second),
            matcher.address.eq(port.address),
            matcher.data.eq(port.w_data),
            port.ready.eq(port.valid & second),
            port.error.eq(~port.write),
        ]

    def _serve_description(self, m, port, text):
        m.submodules.description = store = memory.Memory(shape=WORD, depth=len(text), init=text)
        read = store.read_port()
        second = Signal()
        m.d.sync += second.eq(port.valid & ~second)
        m.d.comb += [
            read.addr.eq(port.address),
            port.r_data.eq(read.data),
            port.ready.eq(port.valid & second),
            port.error.eq(port.write),
        ]

    def _serve_rows(self, m, port, recorder):
        # The row is registered, and its word chosen between registers: a block RAM answers late in its cycle.
        step = Signal(range(4))
        word_bits = (self.row_words - 1).bit_length()
        with m.If(port.valid & (step != 3)):
            m.d.sync += step.eq(step + 1)
        with m.Else():
            m.d.sync += step.eq(0)
        words = Signal(WORD * self.row_words)
        m.d.sync += port.r_data.eq(words.word_select(port.address[:word_bits], WORD) if word_bits else words)
        m.d.sync += words.eq(recorder.read_data)
        m.d.comb += [
            recorder.read_row.eq(port.address >> word_bits),
            port.ready.eq(port.valid & (step == 3)),
            port.error.eq(port.write | (recorder.state != State.COMPLETE)),
        ]
