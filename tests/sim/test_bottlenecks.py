"""Bottleneck flags of the whole device: one resource is made narrow, and the analyzer must name that one."""

from __future__ import annotations

import pytest

from device_link import Device, Window
from offload_manager.allocation import CREDIT_PAGES, Allocation, Guarantee, Row
from offload_manager.driver import AllocationDriver
from sim.board import Board
from sim.inprocess import BoardTransport
from sim.workloads import PROCESS, FlowClass, from_requests, merge, on_off, poisson

pytestmark = pytest.mark.slow

WINDOW = 20_000
EVERYBODY = 16
LIMITS = ("engine_bound", "bandwidth_bound", "pages_bound", "host_bound")


def limits(offers, *, rows=None, host=None, bursts=()):
    """What limits each of the tenants 1 to 3 in the third of four windows, and the rows of that window.

    offers: tenant -> (beats a cycle, destination), in packets of 512 bytes by the host port; `bursts`: those that
    send in bursts. rows: what differs from the usual row of a tenant. host: tenant -> pressures.
    """
    rows = rows or {}

    def requests(tenant, load):
        more = {"seed": tenant, "stream": tenant, "count": int(load * 4 * WINDOW / 64), "size": 512}
        return on_off(**more, burst=40, on_share=0.2) if tenant in bursts else poisson(**more)

    with Board(log_inputs=False) as board, BoardTransport(board) as transport:
        device = Device(transport)
        driver = AllocationDriver(device, 1, packet_pages=CREDIT_PAGES)
        driver.claim()
        usual = {"weight": 256, "rate": 1 << 16, "burst": 512, "pages": 20, "ports": driver.limits.all_ports}
        table = Allocation(tuple(Row(**{**usual, **rows.get(tenant, {})}) if tenant in (1, 2, 3) else Row(burst=512)
                                 for tenant in range(EVERYBODY)), driver.read_active().epoch)
        driver.prepare(table, driver.read_active(), 1, [Guarantee()] * EVERYBODY)
        driver.commit(0)
        for tenant, pressures in (host or {}).items():
            device.write([(device.objective[tenant].host, pressures)])
        device.write([(device.analyzer.window, WINDOW), (device.analyzer.control, 1)])
        while not board.windows():  # from here on the new length holds
            board.advance(10_000)
        if offers:
            work = merge("bottlenecks", [from_requests(
                requests(tenant, load), board.config, load=load, destination=destination, seed=tenant,
                flow_class=FlowClass.REQUEST if destination == PROCESS else FlowClass.BEST_EFFORT)
                for tenant, (load, destination) in offers.items()])
            board.load(work.packets, work.payload, at=board.cycle)
        board.advance(4 * WINDOW + 2_000)
        row = Window.from_words([int(word) for word in board.windows()[2]]).rows
    return [{name for name in LIMITS if getattr(row[tenant], name)} for tenant in (1, 2, 3)], row


def test_calm_tenants_are_limited_by_nothing():
    found, rows = limits({1: (0.2, 1), 2: (0.2, 2), 3: (0.2, PROCESS)})
    assert found == [set(), set(), set()]
    assert not any(rows[tenant].backpressured for tenant in (1, 2, 3))


def test_tenants_that_share_a_full_output_are_limited_by_bandwidth():
    """Tenant 3 uses the same input, and another output a little: it gets what it asks for."""
    found, _ = limits({1: (0.7, 1), 2: (0.7, 1), 3: (0.02, 2)})
    assert found == [{"bandwidth_bound"}, {"bandwidth_bound"}, set()]


def test_tenants_that_share_a_full_input_are_limited_by_bandwidth():
    """Each output has room; what is full is the host port, and the packets wait in the host's queues."""
    found, _ = limits({1: (0.7, 1), 2: (0.7, 2)})
    assert found == [{"bandwidth_bound"}, {"bandwidth_bound"}, set()]


def test_tenant_at_the_rate_of_its_shaper_is_limited_by_bandwidth():
    found, _ = limits({1: (0.5, 1), 2: (0.3, 2)}, rows={1: {"rate": 1 << 14}})
    assert found == [{"bandwidth_bound"}, set(), set()]


def test_tenant_below_the_rate_of_its_shaper_is_not_limited():
    found, _ = limits({1: (0.15, 1)}, rows={1: {"rate": 1 << 14}})
    assert found == [set(), set(), set()]


def test_tenant_with_too_few_pages_for_what_is_in_flight_is_limited_by_pages():
    """Pages for one packet and no pool: nothing is admitted before the packet before has left."""
    found, rows = limits({1: (0.9, 1)}, rows={1: {"pages": 2}, 2: {"pages": 31}, 3: {"pages": 31}})
    assert found == [{"pages_bound"}, set(), set()]
    assert rows[1].bytes_out < 0.7 * 8 * WINDOW, "the output was full after all"


def test_tenant_without_pages_of_its_own_is_limited_by_pages_when_another_holds_the_pool():
    """Tenant 1 waits for its shaper with all that is shared."""
    found, _ = limits({1: (0.5, 1), 2: (0.6, 2)}, rows={1: {"rate": 1 << 14, "pages": 0}, 2: {"pages": 0}})
    assert found == [{"bandwidth_bound"}, {"pages_bound"}, set()]


def test_tenant_that_fills_its_engine_is_limited_by_it():
    """Slot 0 is tenant 1's alone; tenant 2 has the other one, and work for a part of it."""
    found, _ = limits({1: (0.8, PROCESS), 2: (0.1, PROCESS)}, rows={1: {"slots": 0b01}})
    assert found == [{"engine_bound"}, set(), set()]


@pytest.mark.parametrize("pressures", [{"cpu": 230, "memory": 0}, {"cpu": 0, "memory": 205}])
def test_tenant_whose_host_is_pressed_is_limited_by_it(pressures):
    found, _ = limits({}, host={2: pressures, 3: {"cpu": 204, "memory": 204}})
    assert found == [set(), {"host_bound"}, set()]


def test_burstiness_tells_bursts_from_a_random_flow():
    _, rows = limits({1: (0.2, 1), 2: (0.2, 2)}, bursts=(2,))
    assert 0.1 < rows[1].burstiness < 4
    assert rows[2].burstiness > 3 * rows[1].burstiness
    assert rows[3].burstiness == 0
