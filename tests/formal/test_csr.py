"""Arbiter, decoder and register blocks of the register bus keep their contracts, by induction; wrong ones do not."""

import pytest
from amaranth import *

from gateware.csr import regmap
from gateware.csr.arbiter import CsrArbiter
from gateware.csr.decoder import CsrDecoder
from gateware.csr.registers import RegisterBlock
from tests.formal.csr import ArbiterContract, ArbiterWaitContract, DecoderContract, RegisterContract
from tests.formal.prover import prove

RANGES = [range(0x10, 0x20), range(0x20, 0x21), range(0x400, 0x800)]


class UnfairArbiter(CsrArbiter):
    """Initiator 0 always goes first."""

    def _elaborate_turn(self, m, chosen, last):
        for candidate in reversed(range(len(self.initiators))):
            with m.If(self.initiators[candidate].valid):
                m.d.comb += chosen.eq(candidate)


class WrongArbiter(CsrArbiter):
    """Takes the bus away from an access that waits, or answers who is next, or gives what is on the bus meanwhile."""

    def __init__(self, n, fault):
        self.fault = fault
        super().__init__(n)

    def elaborate(self, platform):
        m = super().elaborate(platform)
        if self.fault == "takes away":
            with m.If(self.bus.valid & ~self.bus.ready):
                m.d.sync += self.bus.valid.eq(0)
        elif self.fault == "answers another":
            with m.If(self.bus.ready):
                m.d.sync += self.owner.eq(self.owner + 1)
        else:
            m.d.comb += self.initiators[0].r_data.eq(self.bus.r_data)
        return m


class LeakyDecoder(CsrDecoder):
    """Lets the first target see every access (`leaks`), or never answers outside the ranges (`is silent`)."""

    def __init__(self, ranges, fault):
        self.fault = fault
        super().__init__(ranges)

    def elaborate(self, platform):
        m = super().elaborate(platform)
        if self.fault == "leaks":
            m.d.comb += self.targets[0].valid.eq(self.bus.valid)
        else:
            mapped = Cat(target.valid for target in self.targets).any()
            with m.If(~mapped):
                m.d.comb += self.bus.ready.eq(0)
        return m


class WrongRegisters(RegisterBlock):
    """A register block that ignores byte enables, or changes something on a read, or answers everywhere."""

    def __init__(self, names, fault):
        self.fault = fault
        super().__init__(names)

    def elaborate(self, platform):
        m = super().elaborate(platform)
        for _, prefix, register in self._registers():
            for field in register.fields:
                port = getattr(self, f"{prefix}_{field.name}")
                if field.singlepulse or not field.writable:
                    continue
                if self.fault == "read clears":
                    with m.If(self.bus.valid & self.bus.ready & ~self.bus.write):
                        m.d.sync += port.eq(0)
                elif self.fault == "whole word":
                    with m.If(self.bus.valid & ~self.bus.ready & self.bus.write & self.bus.w_mask.any()):
                        m.d.sync += port.eq(self.bus.w_data[field.lsb:field.lsb + field.width])
        if self.fault == "answers everywhere":
            m.d.comb += self.bus.error.eq(0)
        return m


def register_contract(dut, block):
    """The contract of one top-level block of the register map."""
    node = regmap.node(block)
    fields, resets = [], {}
    for register in node.registers:
        for field in register.fields:
            name = f"{block}_{register.name}_{field.name}"
            # A pulse falls back by itself and reads 0: it is no storage, and left to the simulated tests.
            if not field.singlepulse:
                fields.append(((node.address + register.offset) // 4, field.lsb, name, field.writable))
                resets[name] = field.reset
    return RegisterContract(dut, fields, resets)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_arbiter_answers_one_initiator_at_a_time_and_interrupts_nobody(tmp_path, count):
    verdict = prove(ArbiterContract(CsrArbiter(count)), tmp_path)
    assert verdict.holds, verdict.log


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["takes away", "answers another", "another answer"])
def test_wrong_arbiter_is_refuted(tmp_path, fault):
    verdict = prove(ArbiterContract(WrongArbiter(2, fault)), tmp_path, depth=6)
    assert verdict.refuted, verdict.log


@pytest.mark.slow
@pytest.mark.parametrize(("count", "watched"), [(2, 0), (2, 1), (3, 1)])
def test_arbiter_lets_an_initiator_wait_for_one_access_of_each_other(tmp_path, count, watched):
    verdict = prove(ArbiterWaitContract(CsrArbiter(count), watched), tmp_path, depth=3)
    assert verdict.holds, verdict.log


@pytest.mark.slow
def test_unfair_arbiter_is_refuted(tmp_path):
    verdict = prove(ArbiterWaitContract(UnfairArbiter(2), 1), tmp_path, depth=16)
    assert verdict.refuted, verdict.log


def test_decoder_reaches_one_target_and_answers_the_rest_with_an_error(tmp_path):
    verdict = prove(DecoderContract(CsrDecoder(RANGES), RANGES), tmp_path, depth=1)
    assert verdict.holds, verdict.log


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["leaks", "is silent"])
def test_wrong_decoder_is_refuted(tmp_path, fault):
    verdict = prove(DecoderContract(LeakyDecoder(RANGES, fault), RANGES), tmp_path, depth=2)
    assert verdict.refuted, verdict.log


@pytest.mark.slow
@pytest.mark.parametrize("block", ["link", "analyzer"])
def test_registers_hold_what_was_written_with_byte_enables(tmp_path, block):
    verdict = prove(register_contract(RegisterBlock([block]), block), tmp_path, depth=3)
    assert verdict.holds, verdict.log


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["read clears", "whole word", "answers everywhere"])
def test_wrong_registers_are_refuted(tmp_path, fault):
    verdict = prove(register_contract(WrongRegisters(["analyzer"], fault), "analyzer"), tmp_path, depth=6)
    assert verdict.refuted, verdict.log
