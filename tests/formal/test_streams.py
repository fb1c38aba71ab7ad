"""The stream blocks keep their contracts, by induction; a wrong block of each kind is caught."""

import pytest
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.config import DeviceConfig
from gateware.stream.fork import StreamFork
from gateware.stream.mux import PacketMux
from gateware.stream.skid import ReadyBuffer, SkidBuffer
from tests.formal.prover import prove
from tests.formal.streams import (
    WIDTH,
    BufferContract,
    ForkContract,
    PacketMuxContract,
    WaitContract,
    ready_invariant,
    skid_invariant,
)

pytestmark = pytest.mark.slow  # together more than `make test-fast` has time for

NARROW = DeviceConfig(ports=2, data_width=32, tenants=2)


class BrokenSkid(wiring.Component):
    """A skid buffer with one of three faults: it drops, repeats, or takes back what it offers."""

    i: In(stream.Signature(WIDTH))
    o: Out(stream.Signature(WIDTH))

    def __init__(self, fault):
        self.fault = fault
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        caught = Signal(WIDTH)
        full = Signal()
        m.d.comb += self.i.ready.eq(~full)
        moves = self.o.ready | ~self.o.valid
        if self.fault == "withdraws":
            moves = moves | ~self.i.valid
        with m.If(moves):
            m.d.sync += [self.o.valid.eq(self.i.valid | full), self.o.payload.eq(Mux(full, caught, self.i.payload)),
                         full.eq(0)]
            if self.fault == "swaps":
                m.d.sync += self.o.payload.eq(Mux(full & self.i.valid, self.i.payload, caught))
        with m.Elif(self.i.valid & ~full):
            m.d.sync += caught.eq(self.i.payload)
            if self.fault != "drops":
                m.d.sync += full.eq(1)
        return m


class BrokenFork(StreamFork):
    """Forgets that an output took the word when another did not: it gets it twice."""

    def elaborate(self, platform):
        m = Module()
        taken = Signal(len(self.outputs))
        for output in self.outputs:
            m.d.comb += [output.payload.eq(self.input.payload), output.valid.eq(self.input.valid)]
        m.d.comb += self.input.ready.eq(Cat(output.ready for output in self.outputs).all())
        m.d.sync += taken.eq(0)
        return m


class BrokenMux(PacketMux):
    """Leaves the packet: at each beat (`interleaves`), or before its header went (`headless`)."""

    def __init__(self, config, count, fault):
        self.fault = fault
        super().__init__(config, count)

    def elaborate(self, platform):
        m = Module()
        chosen = Signal(range(self.count))
        header_done = Signal()
        with m.FSM():
            with m.State("CHOOSE"):
                self._choose_next(m, chosen)
                with m.If(Cat(source.header.valid for source in self.inputs).any()):
                    m.d.sync += header_done.eq(0)
                    m.next = "PASS"
            with m.State("PASS"):
                with m.Switch(chosen):
                    for index, source in enumerate(self.inputs):
                        with m.Case(index):
                            self._pass(m, source, header_done)
                            if self.fault == "headless":
                                m.d.comb += [self.output.data.valid.eq(source.data.valid),
                                             source.data.ready.eq(self.output.data.ready)]
                with m.If(self.output.header.valid & self.output.header.ready):
                    m.d.sync += header_done.eq(1)
                beat = self.output.data.valid & self.output.data.ready
                with m.If(beat & (self.output.data.payload.last | (self.fault == "interleaves"))):
                    m.next = "CHOOSE"
        return m


class UnfairMux(PacketMux):
    """Always takes source 0 when it offers."""

    def _choose_next(self, m, chosen):
        for candidate in reversed(range(self.count)):
            with m.If(self.inputs[candidate].header.valid):
                m.d.sync += chosen.eq(candidate)


def test_skid_buffer_loses_repeats_and_reorders_nothing(tmp_path):
    verdict = prove(BufferContract(SkidBuffer(WIDTH), 2, skid_invariant), tmp_path)
    assert verdict.holds, verdict.log


def test_ready_buffer_loses_repeats_and_reorders_nothing(tmp_path):
    verdict = prove(BufferContract(ReadyBuffer(WIDTH), 1, ready_invariant, at_once=True), tmp_path)
    assert verdict.holds, verdict.log


@pytest.mark.slow
def test_buffer_that_offers_late_is_refuted(tmp_path):
    """Another buffer is not one: it offers a cycle late."""
    verdict = prove(BufferContract(SkidBuffer(WIDTH), 1, at_once=True), tmp_path, depth=8)
    assert verdict.refuted, verdict.log


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["drops", "swaps", "withdraws"])
def test_wrong_skid_buffer_is_refuted(tmp_path, fault):
    verdict = prove(BufferContract(BrokenSkid(fault), 2), tmp_path, depth=8)
    assert verdict.refuted, verdict.log
    assert verdict.waveform is not None


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_fork_gives_every_output_every_word_once(tmp_path, count):
    verdict = prove(ForkContract(StreamFork(WIDTH, count)), tmp_path)
    assert verdict.holds, verdict.log


def test_fork_that_gives_a_word_twice_is_refuted(tmp_path):
    verdict = prove(ForkContract(BrokenFork(WIDTH, 2)), tmp_path, depth=6)
    assert verdict.refuted, verdict.log


@pytest.mark.slow
def test_packet_mux_passes_whole_packets_of_one_source_at_a_time(tmp_path):
    verdict = prove(PacketMuxContract(PacketMux(NARROW, 2)), tmp_path)
    assert verdict.holds, verdict.log


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["interleaves", "headless"])
def test_wrong_packet_mux_is_refuted(tmp_path, fault):
    verdict = prove(PacketMuxContract(BrokenMux(NARROW, 2, fault)), tmp_path, depth=8)
    assert verdict.refuted, verdict.log


@pytest.mark.slow
@pytest.mark.parametrize("watched", [0, 1])
def test_packet_mux_lets_nobody_wait_for_a_second_packet_of_another(tmp_path, watched):
    verdict = prove(WaitContract(PacketMux(NARROW, 2), watched), tmp_path)
    assert verdict.holds, verdict.log


@pytest.mark.slow
def test_unfair_packet_mux_is_refuted(tmp_path):
    verdict = prove(WaitContract(UnfairMux(NARROW, 2), 1), tmp_path, depth=12)
    assert verdict.refuted, verdict.log
