"""The whole device on the board: engines answer the right CRC-32C, and every packet is accounted for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sim.board import Board, Outcome, Ready
from sim.control import drop_counters
from sim.workloads import FlowClass, from_requests, merge, on_off

pytestmark = pytest.mark.slow


@pytest.fixture
def device() -> Iterator[Board]:
    with Board() as made:
        yield made


@pytest.mark.parametrize("seed", [1, 2])
def test_every_request_is_answered_with_the_crc_of_its_payload(device, seed):
    requests = on_off(seed=seed, count=300, size=[512, 1024, 4096])
    workload = from_requests(requests, device.config, load=0.5, seed=seed)
    device.sink(0, Ready.RANDOM, 40_000, seed=seed)
    first = device.load(workload.packets, workload.payload, at=device.cycle)
    assert device.drain(2_000_000)
    dropped, cut = drop_counters(device)
    account = device.account(dropped=dropped, cut=cut)
    assert account.clean, str(account)
    assert (dropped, cut) == (0, 0)
    completions = device.completions()
    assert set(completions["path"]) == {Outcome.ENGINE}
    assert len(completions) == len(workload.packets)
    assert (workload.completed(completions, first) >= 0).all()


def test_tenants_without_a_grant_are_dropped_and_counted_not_lost(device):
    granted = from_requests(on_off(seed=3, stream=0, count=50), device.config, load=0.2)
    refused = from_requests(on_off(seed=3, stream=1, count=50), device.config, load=0.2,
                            flow_class=FlowClass.REQUEST_BATCH)
    both = merge("both", [granted, refused])
    device.load(both.packets, both.payload, at=device.cycle)
    assert not device.drain(2_000_000)
    dropped, cut = drop_counters(device)
    assert (dropped, cut) == (len(refused.packets), 0)
    assert device.account(dropped=dropped, cut=cut).clean
    assert device.tenants()["done_packets"][:2].tolist() == [len(granted.packets), 0]
