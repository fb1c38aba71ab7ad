"""The request classifier: ports in turn, the part of a window kept, and what is more than it can take counted."""

import random
from collections import defaultdict

import pytest

from gateware.analyzer.requests import QUEUE, RequestTap, settle
from gateware.config import DeviceConfig
from tests.gateware.analyzer.model import Streams
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(ports=4, tenants=3)
PORTS = CONFIG.ports - 1
EVENTS = 1 << 12


def classify(offers, banks):
    """Offer lists of (tenant, sector) or None by port, a list a cycle; totals by (bank, tenant), and passed over."""
    dut, totals, passed = RequestTap(CONFIG, EVENTS), {}, []

    async def bench(ctx):
        for offer, bank in zip(offers, banks, strict=True):
            ctx.set(dut.bank, bank)
            for port, request in enumerate(offer):
                tenant, sector = request or (0, 0)
                ctx.set(dut.requests[port], {"valid": request is not None, "tenant": tenant, "sector": sector})
            await ctx.tick()
        for port in range(PORTS):
            ctx.set(dut.requests[port], {"valid": 0, "tenant": 0, "sector": 0})
        await ctx.tick().repeat(settle(CONFIG))
        for bank in range(2):
            for tenant in range(CONFIG.tenants):
                ctx.set(dut.read, 1)
                ctx.set(dut.read_bank, bank)
                ctx.set(dut.read_tenant, tenant)
                await ctx.tick()
                totals[bank, tenant] = ctx.get(dut.total_sequential), ctx.get(dut.total_strided)
        passed.append(ctx.get(dut.passed_over))
        await ctx.tick()
        assert ctx.get(dut.passed_over) == passed[0], "counted while nothing came"

    simulate(dut, bench)
    return totals, passed[0]


@pytest.mark.parametrize("seed", range(3))
def test_each_request_is_counted_in_its_bank(seed):
    rng = random.Random(seed)
    offers, banks, expected, streams = [], [], defaultdict(lambda: [0, 0]), defaultdict(Streams)
    sector = defaultdict(lambda: rng.getrandbits(36))
    for number in range(600):
        offer = [None] * PORTS
        port = rng.randrange(PORTS)
        if rng.random() < 0.25:
            tenant = (port + seed) % CONFIG.tenants   # one a port, so that the order is not the arbitration's
            stream = tenant, rng.randrange(4)
            sector[stream] += [8, 1000, -64, 100_000][stream[1]]
            offer[port] = tenant, sector[stream] % (1 << 36)
            kind = streams[tenant].classify(offer[port][1])
            expected[number // 100 % 2, tenant][0] += kind == "sequential"
            expected[number // 100 % 2, tenant][1] += kind == "strided"
        offers.append(offer)
        banks.append(number // 100 % 2)
    totals, passed_over = classify(offers, banks)
    assert totals == {key: tuple(expected[key]) for key in totals}
    assert passed_over == 0


def test_full_queues_are_classified_in_time():
    """As many as fit at every port in the first cycles: none is passed over, and all settle in the time promised."""
    offers = [[(port, 8 * number) for port in range(PORTS)] for number in range(QUEUE)]
    totals, passed_over = classify(offers, [1] * QUEUE)
    assert [totals[1, tenant] for tenant in range(3)] == [(QUEUE - 1, 0)] * 3
    assert passed_over == 0


def test_ports_take_turns_when_all_have_requests():
    """Each port is served every third time; what its queue has no place for is counted as passed over."""
    cycles = 1000
    offers = [[(port, 8 * number) for port in range(PORTS)] for number in range(cycles)]
    totals, passed_over = classify(offers, [0] * cycles)
    found = [totals[0, tenant][0] + 1 for tenant in range(3)]
    assert sum(found) + passed_over == 3 * cycles
    assert max(found) - min(found) <= 1
    assert abs(sum(found) - (cycles / 2 + 3 * QUEUE)) <= 3


@pytest.mark.parametrize("port", range(PORTS))
def test_request_of_a_tenant_that_does_not_exist_is_ignored(port):
    strays = [tenant for tenant in (3, 4, 5, 6, 8, 9, 10, 16, 17, 32, 34, 63) for _ in range(3)]
    offers = [[(tenant, 8 * number) if port == here else None for here in range(PORTS)]
              for number, tenant in enumerate(strays)]
    totals, passed_over = classify(offers, [0] * len(offers))
    assert set(totals.values()) == {(0, 0)}
    assert passed_over == 0
