"""Commits, rollbacks and expiries while traffic flows through every port: every packet is accounted for."""

import random
from collections import Counter

import numpy as np
import pytest

from device_link import Device
from morphnic.errors import AllocationRefused
from offload_manager.allocation import CREDIT_PAGES, Allocation, Guarantee, Row
from offload_manager.driver import AllocationDriver
from sim.board import Board, Ready
from sim.control import drop_counters
from sim.inprocess import BoardTransport
from sim.workloads import FlowClass, from_requests, merge, on_off

PACKETS_A_TENANT = 6_400  # more than 100,000 in all
PROCESS = 15

pytestmark = pytest.mark.slow


def workload(config, seed):
    """Small packets of every tenant: some for the engines or the host's twin, some for the network ports."""
    parts = []
    for tenant in range(config.tenants):
        requests = on_off(seed=seed, stream=tenant, count=PACKETS_A_TENANT, size=[16, 64, 200, 512], burst=50)
        destination = (PROCESS, 1, 2)[tenant % 3]
        kind = FlowClass.REQUEST if destination == PROCESS else FlowClass.BEST_EFFORT
        parts.append(from_requests(requests, config, load=0.8 / config.tenants, destination=destination,
                                   flow_class=kind, seed=seed + tenant))
    return merge("commits", parts)


def random_table(rng, limits, epoch):
    """A legal table that grants everybody the ports, some pages and some weight."""
    quotas = [rng.choice([0, 2, 4]) for _ in range(limits.tenants)]
    while sum(quotas) > limits.pages - CREDIT_PAGES:
        quotas[rng.randrange(limits.tenants)] = 0
    return Allocation(tuple(
        Row(weight=rng.choice([1, 50, 1000, 4000]), rate=rng.choice([1 << 14, 1 << 16]), burst=rng.choice([256, 700]),
            pages=quota, ports=limits.all_ports, host_share=rng.choice([0, 0, 64, 256]))
        for quota in quotas), epoch)


def change_table(rng, board, driver, active, tag):
    """One transaction; returns the table in force afterwards and how it ended."""
    target = random_table(rng, driver.limits, active.epoch)
    guarantees = [Guarantee()] * driver.limits.tenants
    end = rng.choice(["confirm", "roll back", "expire", "at once"])
    try:
        driver.prepare(target, active, tag, guarantees)
        driver.commit(0 if end == "at once" else rng.randrange(2_000, 6_000), drain_cycles=50_000)
    except AllocationRefused as refusal:
        if refusal.reason != "busy draining":
            raise
        driver.abandon()
        return active, "busy"
    if end in ("confirm", "roll back"):
        board.advance(rng.randrange(1, 1_500))
        if end == "confirm":
            driver.confirm()
        else:
            driver.roll_back()
    elif end == "expire":
        board.advance(7_000)
    kept = target if end in ("confirm", "at once") else active
    found = driver.read_active()
    assert found.rows == kept.rows, f"after {end} the device holds another table"
    return found, end


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1])
def test_every_packet_is_accounted_for_over_commits_and_rollbacks(seed):
    rng = random.Random(seed)
    with Board(log_inputs=False) as board, BoardTransport(board) as transport:
        driver = AllocationDriver(Device(transport), 1, packet_pages=CREDIT_PAGES)
        driver.claim()
        active, _ = change_table(random.Random(0), board, driver, driver.read_active(), 1)
        while sum(row.weight > 0 for row in active.rows) < driver.limits.tenants:
            active, _ = change_table(rng, board, driver, active, 1)
        work = workload(board.config, seed)
        for port in range(3):
            board.sink(port, Ready.RANDOM, 55_000, seed=seed + port)
        board.load(work.packets, work.payload, at=board.cycle)
        ends = Counter()
        tag = 1
        while board.stats()["waiting"]:
            board.advance(rng.randrange(500, 8_000))
            tag += 1
            active, end = change_table(rng, board, driver, active, tag)
            ends[end] += 1
        assert board.drain(3_000_000)
        dropped, cut = drop_counters(board)
        account = board.account(dropped=dropped, cut=cut)
        completions = board.completions()
    assert account.clean, str(account)
    assert (dropped, cut) == (0, 0)
    assert account.delivered == len(work.packets) >= 100_000
    assert min(ends[end] for end in ("confirm", "roll back", "expire", "at once")) >= 5, ends
    assert len(np.unique(completions["epoch"])) > 50
