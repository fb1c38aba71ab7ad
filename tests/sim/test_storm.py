"""The scoreboard notices a packet outside its admission epoch; and the device has none, over a storm of commits."""

from __future__ import annotations

import numpy as np
import pytest

from gateware.config import DeviceConfig
from sim.board import GRANT, Board
from sim.soak import read_results, soak
from sim.storm import LOAD, run, traffic
from tests.sim.conftest import host_packets, standin_model
from tests.sim.standin import REG_FAULT, Fault, StandIn

EPOCH = 0xC   # the stand-in's scratch register is its epoch; its headers always say 0


def grants(config, *, without=None, ports=0xF, weight=1):
    """What a table grants: everything to everybody, but for one tenant."""
    rows = np.zeros(config.tenants, GRANT)
    rows["ports"], rows["weight"] = 0xF, 1
    if without is not None:
        rows[without] = (ports, weight)
    return rows


def faults_of(board):
    """Run packets through; the figures, and the packets that faults name."""
    board.load(host_packets(60, 3), at=board.cycle)
    board.drain(100_000)
    return board.stats(), {int(fault["index"]) for fault in board.faults()}


def test_packets_under_a_granting_epoch_are_clean(board):
    rows = grants(board.config)
    board.announce(rows, in_force=True)
    stats, _ = faults_of(board)
    assert (stats["outside_epoch"], stats["faults"]) == (0, 0)


@pytest.mark.parametrize("row", [{"ports": 0xE}, {"weight": 0}])
def test_packet_of_a_tenant_that_its_epoch_grants_nothing_is_a_fault(board, row):
    rows = grants(board.config, without=2, **row)
    board.announce(rows, in_force=True)
    stats, named = faults_of(board)
    expected = {int(record["index"]) for record in board.completions() if record["tenant"] == 2}
    assert named == expected
    assert stats["outside_epoch"] == len(expected) > 0


def test_packet_whose_epoch_was_over_before_it_came_is_a_fault(board):
    rows = grants(board.config)
    board.announce(rows, in_force=True)
    board.announce(rows)
    board.write(EPOCH, 1)
    stats, named = faults_of(board)
    assert stats["outside_epoch"] == len(named) == 60


def test_packet_whose_epoch_ends_while_it_is_inside_is_none(board):
    """Admitted under the old table, it leaves under it."""
    rows = grants(board.config)
    board.announce(rows, in_force=True)
    board.load(host_packets(20, 3, spacing=1), at=board.cycle)
    board.advance(60)
    inside = set(board.unfinished().tolist())
    assert inside
    board.announce(grants(board.config, without=0, ports=0))
    board.write(EPOCH, 1)
    board.drain(100_000)
    assert inside.isdisjoint({int(fault["index"]) for fault in board.faults()})


def test_epoch_whose_table_nobody_announced_is_a_fault(board):
    board.announce(grants(board.config), in_force=True)
    board.write(EPOCH, 1)
    board.write(EPOCH, 0)
    stats, _ = faults_of(board)
    assert stats["outside_epoch"] == 60


@pytest.mark.parametrize("granted", [True, False])
def test_lost_packet_is_a_fault_unless_a_table_refused_it(granted):
    with Board(component=StandIn, model=standin_model()) as board:
        rows = grants(board.config)
        if not granted:
            rows["ports"] &= 0xE
        board.announce(rows, in_force=True)
        board.write(REG_FAULT, Fault.LOSE.value | 7 << 16)
        board.load(host_packets(30, 3), at=board.cycle)
        board.drain(100_000)
        board.settle_drops()
        assert board.stats()["dropped_though_granted"] == granted
        assert board.account(dropped=1).dropped_though_granted == granted


def test_traffic_offers_every_input_its_share_of_the_line():
    config = DeviceConfig()
    rows = traffic(config, np.random.default_rng(1), 100_000)
    for port in (0, 1, 2):
        mine = rows[rows["port"] == port]
        beats = int((-(-mine["length"].astype(int) // config.beat_bytes)).sum())
        assert beats / 100_000 == pytest.approx(LOAD, rel=0.02)
    assert np.all(np.diff(rows["arrival"].astype(np.int64)) >= 0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1])
def test_storm_of_commits_loses_nothing_and_oversteps_no_grant(seed):
    report = run(DeviceConfig(), 400, seed)
    print(report)
    assert report.clean, report
    assert report.commits == 400
    assert min(report.at_once, report.confirmed, report.rolled_back, report.expired, report.fenced) >= 10
    assert report.delivered > 20_000
    assert report.dropped < report.packets / 4


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_soak_goes_on_where_it_was_interrupted(tmp_path):
    path = tmp_path / "soak.jsonl"
    first = soak(30, 5, path)
    assert first.seed == 5
    assert (first.commits, first.clean) == (30, True)
    again = soak(30, 5, path)
    assert again.commits == 30
    assert len(path.read_text().splitlines()) == 1
    assert read_results(path, "another model") == []
