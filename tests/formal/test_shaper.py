"""A shaper with two tenants, on its ports: bounded, any rate, any burst, any packets; wrong ones are caught."""

import pytest
from amaranth import *
from amaranth.lib import wiring

from gateware.config import DeviceConfig
from gateware.fabric.shaper import Shaper
from tests.formal.prover import check, pass_through
from tests.formal.shaper import SETTLED, ShaperContract

pytestmark = pytest.mark.slow

SMALL = DeviceConfig(ports=2, data_width=32, tenants=2, slots=1, pages=32)


class WrongShaper(wiring.Component):
    """A shaper that is told half of each packet (`forgets`), or twice the rate (`hurries`), or lags (`late`)."""

    def __init__(self, config, fault):
        self.inner, self.fault = Shaper(config), fault
        super().__init__(self.inner.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = self.inner
        pass_through(m, self, inner)
        if self.fault == "forgets":
            m.d.comb += inner.beats.eq(self.beats >> 1)
        elif self.fault == "hurries":
            m.d.comb += inner.allocation.row.rate.eq(0x10000)
        else:
            late = Signal.like(self.ok, init=(1 << len(self.ok)) - 1)
            m.d.sync += late.eq(inner.ok)
            m.d.comb += self.ok.eq(late)
        return m


def test_shaper_never_starts_more_than_rate_and_burst_allow(tmp_path):
    verdict = check(ShaperContract(Shaper(SMALL), SMALL, 1), tmp_path, SETTLED + 4)
    assert verdict.holds, verdict.log


@pytest.mark.long_proof
@pytest.mark.parametrize("tenant", [0, 1])
def test_shaper_never_starts_more_over_a_longer_time(tmp_path, tenant):
    verdict = check(ShaperContract(Shaper(SMALL), SMALL, tenant), tmp_path, SETTLED + 8)
    assert verdict.holds, verdict.log


@pytest.mark.parametrize("fault", ["forgets", "hurries", "late"])
def test_wrong_shaper_is_refuted(tmp_path, fault):
    verdict = check(ShaperContract(WrongShaper(SMALL, fault), SMALL, 1), tmp_path, SETTLED + 8)
    assert verdict.refuted, verdict.log
