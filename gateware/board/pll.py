"""The PLLs of ECP5 and iCE40, set for the lowest frequency at or above the one that is asked.

Contract: `clock_out` runs at `hz` once `locked` is high; until then it may be anything. Where the family can gate a
clock (`gates`), it stands still unless `run` is high; it starts and stops without a short pulse, three cycles after
`run`, which may be asynchronous. `hz` is exact for the nominal `clock_in`. A frequency that cannot be made is refused
by the constructor.
"""

from dataclasses import dataclass
from fractions import Fraction

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["Ecp5Pll", "Ice40Pll", "pll_for"]

# Limits of the data sheets: ECP5 (FPGA-DS-02012) and iCE40 LP/HX (FPGA-DS-02029), in Hz.
_ECP5_COMPARED, _ECP5_VCO = (3_125_000, 400_000_000), (400_000_000, 800_000_000)
_ICE40_COMPARED, _ICE40_VCO = (10_000_000, 133_000_000), (533_000_000, 1_066_000_000)


@dataclass(frozen=True)
class Setting:
    """Dividers of one PLL, and the frequencies that follow from them."""

    output: Fraction
    vco: Fraction
    reference: int
    feedback: int
    divider: int


class _Pll(wiring.Component):
    """What both have in common: the choice among `_settings`."""

    gates: bool   # `run` has an effect

    def __init__(self, input_hz: int, output_hz: int):
        possible = [one for one in self._settings(input_hz) if one.output >= output_hz]
        if not possible:
            raise ValueError(f"output_hz must be a frequency that the PLL makes from {input_hz}, not {output_hz!r}")
        # Of equal frequencies the one with the fastest oscillator has the least jitter.
        self._setting = min(possible, key=lambda one: (one.output, -one.vco))
        self._input_hz = input_hz
        super().__init__({"clock_in": In(1), "run": In(1), "clock_out": Out(1), "locked": Out(1)})

    @property
    def hz(self) -> int:
        """Frequency of `clock_out`, rounded to one Hz."""
        return round(self._setting.output)

    @property
    def setting(self) -> Setting:
        """The chosen dividers."""
        return self._setting


class Ecp5Pll(_Pll):
    """EHXPLLL with the feedback from its primary output, and a gate of the global clock (DCCA) behind it."""

    gates = True

    @staticmethod
    def _settings(input_hz: int):
        for reference in range(1, 129):
            compared = Fraction(input_hz, reference)
            if not _ECP5_COMPARED[0] <= compared <= _ECP5_COMPARED[1]:
                continue
            for feedback in range(1, 81):
                output = compared * feedback
                for divider in range(1, 129):
                    vco = output * divider
                    if _ECP5_VCO[0] <= vco <= _ECP5_VCO[1]:
                        yield Setting(output, vco, reference, feedback, divider)

    def elaborate(self, platform):
        m = Module()
        setting = self._setting
        m.domains.free = ClockDomain(reset_less=True, local=True)
        free, enable = ClockSignal("free"), Signal()
        m.submodules.enable = FFSynchronizer(self.run, enable, o_domain="free")
        m.submodules.gate = Instance("DCCA", i_CLKI=free, i_CE=enable, o_CLKO=self.clock_out)
        m.submodules.pll = Instance(
            "EHXPLLL",
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1", a_MFG_GMCREF_SEL="2",
            p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED", p_DPHASE_SOURCE="DISABLED",
            p_OUTDIVIDER_MUXA="DIVA", p_OUTDIVIDER_MUXB="DIVB", p_OUTDIVIDER_MUXC="DIVC", p_OUTDIVIDER_MUXD="DIVD",
            p_CLKI_DIV=setting.reference, p_CLKFB_DIV=setting.feedback, p_CLKOP_DIV=setting.divider,
            p_CLKOP_ENABLE="ENABLED", p_CLKOP_CPHASE=setting.divider - 1, p_CLKOP_FPHASE=0, p_FEEDBK_PATH="CLKOP",
            i_CLKI=self.clock_in, i_CLKFB=free, o_CLKOP=free, o_LOCK=self.locked,
            i_RST=Const(0), i_STDBY=Const(0), i_PHASESEL0=Const(0), i_PHASESEL1=Const(0), i_PHASEDIR=Const(1),
            i_PHASESTEP=Const(1), i_PHASELOADREG=Const(1), i_PLLWAKESYNC=Const(0), i_ENCLKOP=Const(0))
        return m


class Ice40Pll(_Pll):
    """SB_PLL40_CORE with the simple feedback. The output divider is a power of two."""

    gates = False

    @staticmethod
    def _settings(input_hz: int):
        for reference in range(1, 17):
            compared = Fraction(input_hz, reference)
            if not _ICE40_COMPARED[0] <= compared <= _ICE40_COMPARED[1]:
                continue
            for feedback in range(1, 129):
                vco = compared * feedback
                if _ICE40_VCO[0] <= vco <= _ICE40_VCO[1]:
                    for divider in range(1, 7):
                        yield Setting(vco / (1 << divider), vco, reference, feedback, divider)

    def elaborate(self, platform):
        m = Module()
        setting = self._setting
        compared = self._input_hz / setting.reference
        bands = (17e6, 26e6, 44e6, 66e6, 101e6)
        m.submodules.pll = Instance(
            "SB_PLL40_CORE",
            p_FEEDBACK_PATH="SIMPLE", p_PLLOUT_SELECT="GENCLK",
            p_FILTER_RANGE=Const(1 + sum(compared >= top for top in bands), 3),
            p_DIVR=Const(setting.reference - 1, 4), p_DIVF=Const(setting.feedback - 1, 7),
            p_DIVQ=Const(setting.divider, 3),
            i_REFERENCECLK=self.clock_in, i_RESETB=Const(1), i_BYPASS=Const(0),
            o_PLLOUTGLOBAL=self.clock_out, o_LOCK=self.locked)
        return m


def pll_for(family: str, input_hz: int, output_hz: int) -> _Pll:
    """The PLL of a board's family."""
    return {"ecp5": Ecp5Pll, "ice40": Ice40Pll}[family](input_hz, output_hz)
