"""Boards around the stand-in device, built once a session (and cached between sessions)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from gateware.config import DeviceConfig
from sim.board import PACKET, Array, Board
from sim.build import Model
from sim.harness import device_model
from tests.sim.standin import StandIn


@cache
def standin_model() -> Model:
    """The stand-in's model."""
    return device_model(DeviceConfig(), component=StandIn)


@pytest.fixture
def board() -> Iterator[Board]:
    """A board in reset state around the stand-in."""
    with Board(component=StandIn, model=standin_model()) as made:
        yield made


def host_packets(count: int, seed: int, *, tenants: int = 4, spacing: int = 40, longest: int = 300) -> Array:
    """Random packets for the host port that go to the host port."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, PACKET)
    rows["arrival"] = np.sort(rng.integers(0, count * spacing + 1, count))
    rows["seed"] = rng.integers(0, 1 << 60, count, dtype=np.uint64)
    rows["offset"] = -1
    rows["length"] = rng.integers(17, longest, count)
    rows["tenant"] = rng.integers(0, tenants, count)
    rows["flow_hash"] = rng.integers(0, 1 << 16, count)
    rows["flow_class"] = 1
    return rows
