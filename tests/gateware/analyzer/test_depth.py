"""Depths, peaks and samples, cycle by cycle, against plain counting, from empty to as many as there is room for."""

import random

import pytest

from gateware.analyzer.depth import SPAN, DepthTracker, most_packets
from gateware.config import DeviceConfig
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(ports=3, tenants=3, pages=32)
READABLE = CONFIG.tenants + 6   # cycles from the end of a window until its figures are there
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
        self._now = [now + admitted.count(tenant) - left.count(tenant) for tenant, now in enumerate(self._now)]
        self._most = [max(pair) for pair in zip(self._most, self._now, strict=True)]
        self._without &= ~credit
        self._cycle += 1
        if self._cycle % SPAN == 0:
            self._starved, self._without = self._without, EVERY
        self._samples[self._turn].append((self._now[self._turn], self._starved >> self._turn & 1))
        self._turn = (self._turn + 1) % CONFIG.tenants
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
                # As soon as they may be, each tenant is asked for in three cycles: the answer is there in the third.
                tenant, since = divmod(number - READABLE, 3)
                if ended and 0 <= tenant < CONFIG.tenants:
                    ctx.set(dut.tenant, tenant)
                    if since == 2:
                        seen = ctx.get(dut.sampled)
                        found.append({"depth": ctx.get(dut.depth), "peak": ctx.get(dut.peak), "count": seen.count,
                                      "sum": seen.depth, "held": seen.held})
                        wanted.append(ended[tenant])
                model.step(admitted, left, credit, number == len(window) - 1)
                await ctx.tick()

    simulate(dut, bench)
    return found, wanted


class Stimulus:
    """Events of one tenant in most places, so that its depth goes far, some of tenants that do not exist; credit comes
    and goes. Nobody leaves who is not there, and no more come than there is room for."""

    def __init__(self, seed):
        self._rng = random.Random(seed)
        self.depths = [0] * CONFIG.tenants

    def window(self, cycles, rises, falls):
        rng = self._rng
        favourite, credit, window = rng.choice(TENANTS), EVERY, []
        for _ in range(cycles):
            if rng.random() < 0.03:
                credit = rng.getrandbits(CONFIG.tenants)
            left = self._events(favourite, falls, -1)
            window.append((self._events(favourite, rises, 1), left, credit if rng.random() < 0.99 else EVERY))
        return window

    def _events(self, favourite, load, step):
        return [self._event(favourite, step) if self._rng.random() < load else None for _ in PORTS]

    def _event(self, favourite, step):
        tenant = self._rng.choice([favourite, favourite, *TENANTS, self._rng.randrange(64)])
        if tenant >= CONFIG.tenants:
            return tenant
        if not 0 <= self.depths[tenant] + step <= most_packets(CONFIG):
            return None
        self.depths[tenant] += step
        return tenant


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_depth_peak_and_samples_equal_plain_counting(seed):
    """Rising, falling and level; windows of many lengths, the shortest included."""
    stimulus = Stimulus(seed)
    shortest = READABLE + 1
    windows = [stimulus.window(cycles, *loads) for cycles, loads in (
        (shortest, (0.5, 0.5)), (400, (0.9, 0.1)), (shortest + 8, (1.0, 1.0)), (700, (0.1, 0.9)), (300, (0.9, 0.1)),
        (shortest + 9, (0.0, 0.0)), (100, (0.1, 0.9)), (250, (1.0, 0.0)), (400, (0.5, 0.5)), (2300, (1.0, 0.0)),
        (shortest + 10, (1.0, 1.0)), *((shortest + 7 + more, (0.8, 0.8)) for more in range(9)), (600, (0.0, 1.0)),
        (shortest + 8, (0.0, 0.0)))]
    found, wanted = track(windows)
    assert found == wanted
    depths = [answer["depth"] for answer in wanted]
    assert min(depths) < 1 << 5, "the stimulus misses a case"
    assert max(answer["peak"] for answer in wanted) == most_packets(CONFIG), "the stimulus misses a case"


@pytest.mark.parametrize(("gap", "held"), [(SPAN - 1, False), (2 * SPAN - 1, True)])
def test_only_a_whole_span_without_credit_is_held(gap, held):
    """A gap of a cycle less than a span has no whole one in it; of a cycle less than two, always."""
    for offset in range(SPAN):
        cycles = 4 * SPAN
        window = [(*IDLE, EVERY & ~(0b010 if offset <= number < offset + gap else 0)) for number in range(cycles)]
        found, wanted = track([window, [(*IDLE, EVERY)] * (READABLE + 3 * CONFIG.tenants)])
        assert found == wanted
        assert any(answer.get("held") for answer in wanted) == held
