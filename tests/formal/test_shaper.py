"""A shaper with two tenants, any rate and any packets: by induction at small widths, bounded at the real ones."""

from functools import partial

import pytest
from amaranth import *
from amaranth.lib import wiring

from gateware.config import DeviceConfig
from gateware.fabric import allowances, shaper
from tests.formal.prover import check, pass_through, prove
from tests.formal.shaper import PARTS, ShaperContract, shaper_invariant
from tests.gateware.fabric.bench import ShaperOfRows

pytestmark = pytest.mark.slow

SMALL = DeviceConfig(ports=2, data_width=32, tenants=2, slots=1, pages=32)
THREE = DeviceConfig(ports=2, data_width=32, tenants=3, slots=1, pages=32)
SETTLED = 9  # cycles after which packets may start


@pytest.fixture
def narrow(monkeypatch):
    """Rates of 4 bits and packets of up to 8 beats, for the arithmetic alone."""
    monkeypatch.setattr(allowances, "FRACTION", 4)
    monkeypatch.setattr(allowances, "LEAST_RATE", 1)
    for module in (allowances, shaper):
        monkeypatch.setattr(module, "MAX_PACKET_BEATS", 8)


class WrongShaper(wiring.Component):
    """A shaper that is told half of each packet (`forgets`), or twice its burst (`brims`), or more than the rate
    (`hurries`), or whose flags lag (`late`)."""

    def __init__(self, config, fault):
        self.inner, self.fault = ShaperOfRows(config), fault
        super().__init__(self.inner.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = self.inner
        pass_through(m, self, inner)
        if self.fault == "forgets":
            m.d.comb += inner.beats.eq(self.beats >> 1)
        elif self.fault == "brims":
            m.d.comb += inner.allocation.row.burst.eq(self.allocation.row.burst << 1)
        elif self.fault == "hurries":
            m.d.comb += inner.allocation.row.rate.eq(0x10000)
        else:
            late = Signal.like(self.ok, init=(1 << len(self.ok)) - 1)
            m.d.sync += late.eq(inner.ok)
            m.d.comb += self.ok.eq(late)
        return m


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("part", PARTS)
def test_shaper_never_starts_more_than_rate_and_burst_allow_in_any_time(tmp_path, part):
    invariant = partial(shaper_invariant, part=part)
    verdict = prove(ShaperContract(ShaperOfRows(SMALL), SMALL, 1, invariant), tmp_path, depth=1)
    assert verdict.holds, verdict.log


@pytest.mark.long_proof
@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(("config", "tenant"), [(SMALL, 0), (THREE, 0), (THREE, 1), (THREE, 2)])
@pytest.mark.parametrize("part", PARTS)
def test_shaper_of_any_tenant_never_starts_more_in_any_time(tmp_path, config, tenant, part):
    invariant = partial(shaper_invariant, part=part)
    verdict = prove(ShaperContract(ShaperOfRows(config), config, tenant, invariant), tmp_path, depth=1)
    assert verdict.holds, verdict.log


@pytest.mark.long_proof
@pytest.mark.parametrize("tenant", [0, 1])
def test_shaper_never_starts_more_at_real_widths(tmp_path, tenant):
    verdict = check(ShaperContract(ShaperOfRows(SMALL), SMALL, tenant), tmp_path, SETTLED + 5)
    assert verdict.holds, verdict.log


@pytest.mark.parametrize("fault", ["forgets", "brims", "hurries", "late"])
def test_wrong_shaper_is_refuted(tmp_path, fault):
    verdict = check(ShaperContract(WrongShaper(SMALL, fault), SMALL, 1), tmp_path, SETTLED + 8)
    assert verdict.refuted, verdict.log
