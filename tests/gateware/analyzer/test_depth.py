"""Depths, peaks and samples, cycle by cycle, against plain counting; counts wrap at 2**16 in both directions."""

import random

import pytest

from gateware.analyzer.depth import SPAN, DepthTracker
from gateware.config import DeviceConfig
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(ports=3, tenants=3)
TENANTS, PORTS = range(CONFIG.tenants), range(CONFIG.ports)
EVERY = (1 << CONFIG.tenants) - 1
IDLE = ([None] * CONFIG.ports, [None] * CONFIG.ports)


class Model:
    """One cycle at a time; `ended` is what the window that ended last has for each tenant."""

    def __init__(self):
        self._now, self._most = [0] * CONFIG.tenants, [0] * CONFIG.tenants
        self._turn, self._cycle = 0, 0
        self._without, self._starved = EVERY, 0   # in this span so far, in all of the one before
        self._samples = [[] for _ in TENANTS]
        self.ended = None

    def step(self, admitted, left, credit, ends):
        self._samples[self._turn].append((self._now[self._turn], self._starved >> self._turn & 1))
        self._turn = (self._turn + 1) % CONFIG.tenants
        self._now = [(now + admitted.count(tenant) - left.count(tenant)) % (1 << 16)
                     for tenant, now in enumerate(self._now)]
        self._most = [max(pair) for pair in zip(self._most, self._now, strict=True)]
        self._without &= ~credit
        self._cycle += 1
        if self._cycle % SPAN == 0:
            self._starved, self._without = self._without, EVERY
        if ends:
            self.ended = [{"depth": now, "peak": most, "count": len(samples),
                           "sum": sum(depth for depth, _ in samples), "held": sum(held for _, held in samples)}
                          for now, most, samples in zip(self._now, self._most, self._samples, strict=True)]
            self._most, self._turn, self._samples = list(self._now), 0, [[] for _ in TENANTS]


def track(windows):
    """Drive windows, each a list of (admitted, left, credit) a cycle; found and expected answers, asked while the next
    window is counted."""
    dut, model, found, wanted = DepthTracker(CONFIG), Model(), [], []

    async def bench(ctx):
        before = {}
        for window in windows:
            ended = model.ended
            for number, (admitted, left, credit) in enumerate(window):
                for side, ports, events in (("admitted", dut.admitted, admitted), ("left", dut.left, left)):
                    for index, tenant in enumerate(events):
                        if before.get((side, index), -1) != tenant:
                            ctx.set(ports[index], {"valid": tenant is not None, "tenant": tenant or 0})
                            before[side, index] = tenant
                ctx.set(dut.credit, credit)
                ctx.set(dut.window_end, number == len(window) - 1)
                # Each tenant is asked for in three cycles, from the first on: the samples are there in the third.
                tenant, since = divmod(number, 3)
                if ended and tenant < CONFIG.tenants:
                    ctx.set(dut.tenant, tenant)
                    found.append({"depth": ctx.get(dut.depth), "peak": ctx.get(dut.peak)})
                    if since == 2:
                        seen = ctx.get(dut.sampled)
                        found[-1] |= {"count": seen.count, "sum": seen.depth, "held": seen.held}
                    wanted.append({name: ended[tenant][name] for name in found[-1]})
                model.step(admitted, left, credit, number == len(window) - 1)
                await ctx.tick()

    simulate(dut, bench)
    return found, wanted


def random_window(rng, cycles, rises, falls):
    """Events of one tenant in most places, so that its depth goes far, some of tenants that do not exist; credit comes
    and goes."""
    favourite, credit = rng.choice(TENANTS), EVERY

    def events(load):
        return [rng.choice([favourite, favourite, *TENANTS, rng.randrange(64)]) if rng.random() < load else None
                for _ in PORTS]

    window = []
    for _ in range(cycles):
        if rng.random() < 0.03:
            credit = rng.getrandbits(CONFIG.tenants)
        window.append((events(rises), events(falls), credit if rng.random() < 0.99 else EVERY))
    return window


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_depth_peak_and_samples_equal_plain_counting(seed):
    """Rising, falling below 0 (so that every bit changes) and level; windows of many lengths, the shortest included."""
    rng = random.Random(seed)
    windows = [random_window(rng, cycles, *loads) for cycles, loads in (
        (12, (0.5, 0.5)), (400, (0.9, 0.1)), (13, (1.0, 1.0)), (700, (0.1, 0.9)), (300, (0.9, 0.1)), (14, (0.0, 0.0)),
        (100, (0.1, 0.9)), (250, (1.0, 0.0)), (400, (0.5, 0.5)), (12, (0.0, 0.0)))]
    found, wanted = track(windows)
    assert found == wanted
    depths = [answer["depth"] for answer in wanted]
    assert min(depths) < 1 << 8, "the stimulus misses a case"
    assert max(depths) > (1 << 16) - (1 << 8), "the stimulus misses a case"


@pytest.mark.parametrize(("gap", "held"), [(SPAN - 1, False), (2 * SPAN - 1, True)])
def test_only_a_whole_span_without_credit_is_held(gap, held):
    """A gap of a cycle less than a span has no whole one in it; of a cycle less than two, always."""
    for offset in range(SPAN):
        cycles = 4 * SPAN
        window = [(*IDLE, EVERY & ~(0b010 if offset <= number < offset + gap else 0)) for number in range(cycles)]
        found, wanted = track([window, [(*IDLE, EVERY)] * 10])
        assert found == wanted
        assert any(answer.get("held") for answer in wanted) == held
