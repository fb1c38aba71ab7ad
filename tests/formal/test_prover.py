"""The prover itself: what is not proven is never taken for proven."""

import pytest
from amaranth import *
from amaranth.hdl import Assert

from morphnic.errors import EnvironmentFault
from tests.formal import prover
from tests.formal.prover import AnySeq, Claims, Engine, check, internals, prove

pytestmark = pytest.mark.slow  # together more than `make test-fast` has time for


class Counter(Elaboratable):
    """Counts 0, 1, 2, 0 ...; claims to stay below `limit`. 3 is unreachable, and stays there."""

    def __init__(self, limit):
        self.limit = limit

    def elaborate(self, platform):
        m = Module()
        count = Signal(4)
        step = Signal()
        m.d.comb += step.eq(AnySeq(1))
        with m.If(step & (count < 3)):
            m.d.sync += count.eq(Mux(count == 2, 0, count + 1))
        m.d.comb += Assert(count < self.limit)
        return m


def test_false_claim_is_refuted_with_a_waveform_and_its_line(tmp_path):
    verdict = prove(Counter(2), tmp_path, depth=5)
    assert verdict.refuted
    assert not verdict.holds
    assert "test_prover.py:" in verdict.broken
    assert verdict.waveform.read_text().startswith("$")


def test_claim_that_induction_cannot_close_is_neither_proven_nor_refuted(tmp_path):
    verdict = prove(UnreachableLimit(), tmp_path, depth=4)
    assert not verdict.holds
    assert not verdict.refuted


class UnreachableLimit(Elaboratable):
    """Two copies of a counter that never differ, which no depth shows without saying so."""

    def elaborate(self, platform):
        m = Module()
        first = Signal(4)
        second = Signal(4)
        step = Signal()
        m.d.comb += step.eq(AnySeq(1))
        with m.If(step):
            m.d.sync += [first.eq(first + 1), second.eq(second + 1)]
        m.d.comb += Assert((first != 15) | (second == 15))
        return m


def test_claim_that_holds_is_proven(tmp_path):
    assert prove(Counter(3), tmp_path).holds


@pytest.mark.slow
def test_bounded_check_says_nothing_beyond_its_depth(tmp_path):
    assert check(Counter(2), tmp_path, depth=2).holds
    assert check(Counter(2), tmp_path, depth=3).refuted


@pytest.mark.slow
def test_engine_on_bits_finds_the_invariant_that_induction_lacks(tmp_path):
    assert prove(UnreachableLimit(), tmp_path, engine=Engine.ABC).holds


@pytest.mark.slow
@pytest.mark.parametrize("decide", [prove, check])
def test_engine_on_bits_refutes_a_false_claim_with_a_waveform_and_its_line(tmp_path, decide):
    verdict = decide(Counter(2), tmp_path, depth=5, engine=Engine.ABC)
    assert verdict.refuted
    assert not verdict.holds
    assert "test_prover.py:" in verdict.broken
    assert verdict.waveform.read_text().startswith("$")


@pytest.mark.slow
def test_bounded_check_on_bits_says_nothing_beyond_its_depth(tmp_path):
    assert check(Counter(2), tmp_path / "two", depth=2, engine=Engine.ABC).holds
    assert check(Counter(2), tmp_path / "three", depth=3, engine=Engine.ABC).refuted


class Halves(Elaboratable):
    """A part of four claims, of which the last breaks in the second cycle."""

    def __init__(self, part):
        self.claims = Claims(part)

    def elaborate(self, platform):
        m, late = Module(), Signal()
        m.d.sync += late.eq(1)
        m.d.comb += [self.claims("half", claim) for claim in (C(1), C(1), C(1), ~late)]
        self.claims.finish(m)
        return m


def test_claim_that_breaks_is_found_by_its_own_share_only(tmp_path):
    assert prove(Halves("half 0/2"), tmp_path / "first", depth=1).holds
    assert not prove(Halves("half 1/2"), tmp_path / "second", depth=1).holds
    assert not prove(Halves(None), tmp_path / "all", depth=1).holds


@pytest.mark.parametrize("part", ["halves", "half 4/5"])
def test_part_without_a_claim_is_an_error_and_proves_nothing(tmp_path, part):
    with pytest.raises(ValueError, match=f"there is no claim of '{part}'"):
        prove(Halves(part), tmp_path)


def test_missing_program_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(prover, "PROGRAMS", ("yowasp-sby", "no-such-solver"))
    with pytest.raises(EnvironmentFault, match=r"no-such-solver is missing; type: pip install 'morphnic\[formal\]'"):
        prove(Counter(3), tmp_path)


def test_register_that_does_not_exist_is_an_error_not_an_empty_invariant():
    from gateware.stream.skid import SkidBuffer

    _, inside = internals(SkidBuffer(3))
    assert {"full", "caught", "o__valid"} <= set(inside)
    with pytest.raises(KeyError):
        inside["gone"]
