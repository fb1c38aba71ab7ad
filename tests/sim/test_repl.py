"""The signal-level backend: pins by name, registers by pins, and the same values as the board."""

from __future__ import annotations

import pytest

from sim.board import Board
from sim.repl import open_device
from tests.sim.conftest import standin_model
from tests.sim.standin import MAGIC, StandIn

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sim():
    return open_device(component=StandIn)


def test_registers_are_read_and_written_through_the_pins(sim):
    assert sim.read(0) == MAGIC
    sim.write(0xC, 0x12345678)
    assert sim.read(0xC) == 0x12345678
    with pytest.raises(ValueError, match="0x00014 refused"):
        sim.read(5)


def test_steps_count_cycles_of_the_device(sim):
    before = sim["cycle"]
    sim.step(17)
    assert sim["cycle"] == before + 17


def test_wide_pins_keep_every_bit(sim):
    value = (1 << 85) | (0xABCD << 40) | 5
    sim["host_rx__header__payload"] = value
    assert sim["host_rx__header__payload"] == value


def test_errors_name_the_pin(sim):
    with pytest.raises(KeyError, match=r"no pin 'mmio_adress'.*mmio__address"):
        sim["mmio_adress"]
    with pytest.raises(ValueError, match="driven by the device"):
        sim["cycle"] = 1
    with pytest.raises(ValueError, match="16 bits"):
        sim["mmio__address"] = 1 << 16


def test_windows_on_the_pins_are_those_of_the_board(sim):
    """The same design from reset: word for word, whichever way it is driven."""
    fresh = open_device(component=StandIn)
    fresh["telemetry__ready"] = 1
    words = []
    for _ in range(60):
        fresh.settle()
        if fresh["telemetry__valid"]:
            words.append(fresh["telemetry__payload"] & 0xFFFF_FFFF)
        fresh.step()
    with Board(model=standin_model()) as board:
        board.advance(60)
        assert board.windows()[0].tolist() == words
