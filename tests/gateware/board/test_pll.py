"""The PLLs' dividers against the limits of the data sheets and the frequency that was asked."""

import re
from fractions import Fraction

import pytest
from amaranth.back import rtlil

from gateware.board.pll import Ecp5Pll, Ice40Pll, pll_for


@pytest.mark.slow
@pytest.mark.parametrize(("input_hz", "asked"), [
    (25_000_000, 125_000_000), (25_000_000, 150_000_000), (100_000_000, 125_000_000), (25_000_000, 58_000_000),
    (100_000_000, 33_333_333), (16_000_000, 64_000_000)])
def test_ecp5_gives_at_least_the_frequency_within_its_limits(input_hz, asked):
    pll = Ecp5Pll(input_hz, asked)
    setting = pll.setting
    compared = Fraction(input_hz, setting.reference)
    assert compared * setting.feedback == setting.output
    assert setting.output * setting.divider == setting.vco
    assert 3_125_000 <= compared <= 400_000_000
    assert 400_000_000 <= setting.vco <= 800_000_000
    assert asked <= setting.output <= asked * Fraction(102, 100)
    assert pll.hz == round(setting.output)


@pytest.mark.slow
def test_ecp5_makes_the_boards_clocks_exactly():
    assert Ecp5Pll(25_000_000, 125_000_000).hz == 125_000_000
    assert Ecp5Pll(100_000_000, 125_000_000).hz == 125_000_000


@pytest.mark.parametrize("asked", [80_000_000, 100_000_000, 48_000_000, 60_000_000])
def test_ice40_gives_at_least_the_frequency_within_its_limits(asked):
    setting = Ice40Pll(12_000_000, asked).setting
    compared = Fraction(12_000_000, setting.reference)
    assert compared * setting.feedback == setting.vco
    assert setting.vco == setting.output * 2 ** setting.divider
    assert 10_000_000 <= compared <= 133_000_000
    assert 533_000_000 <= setting.vco <= 1_066_000_000
    assert asked <= setting.output <= asked * Fraction(103, 100)


def test_ice40_80_mhz_from_12_is_81():
    assert Ice40Pll(12_000_000, 80_000_000).hz == 81_000_000


@pytest.mark.parametrize(("family", "asked"), [("ecp5", 900_000_000), ("ice40", 600_000_000)])
def test_frequency_that_cannot_be_made_is_refused(family, asked):
    with pytest.raises(ValueError, match=f"output_hz must be .* makes from 12000000, not {asked}"):
        pll_for(family, 12_000_000, asked)


def test_dividers_reach_the_instances():
    text = rtlil.convert(Ecp5Pll(25_000_000, 125_000_000), emit_src=False)
    for line in (r"\CLKI_DIV 1", r"\CLKFB_DIV 5", r"\CLKOP_DIV 6", r"\CLKOP_CPHASE 5"):
        assert f"parameter {line}\n" in text
    text = rtlil.convert(Ice40Pll(12_000_000, 80_000_000), emit_src=False)
    for line in (r"\DIVR 4'0000", r"\DIVF 7'0110101", r"\DIVQ 3'011", r"\FILTER_RANGE 3'001"):
        assert f"parameter {line}\n" in text, text


def test_ecp5_gates_the_output_and_not_the_feedback():
    text = rtlil.convert(Ecp5Pll(25_000_000, 125_000_000), emit_src=False)
    wires = dict(re.findall(r"connect \\(CLKFB|CLKOP|CLKI|CLKO) (\S+)", text[text.index("cell \\DCCA"):]))
    oscillator = dict(re.findall(r"connect \\(CLKFB|CLKOP|CLKI) (\S+)", text[text.index("cell \\EHXPLLL"):]))
    assert oscillator["CLKFB"] == oscillator["CLKOP"] != wires["CLKO"]
    assert oscillator["CLKI"] == "\\clock_in"
    assert wires["CLKO"] == "\\clock_out"
