"""`DeviceConfig`: what it refuses, and what follows from the parameters of the engine slots."""

import pytest

from gateware.config import DeviceConfig


@pytest.mark.parametrize("value", [0, 3, 5, 8, -1])
def test_slot_bytes_that_no_shard_is_built_for_are_refused(value):
    with pytest.raises(ValueError, match=f"slot_bytes must be 1, 2 or 4, not {value}"):
        DeviceConfig(slot_bytes=value)


@pytest.mark.parametrize(("slots", "slot_bytes", "data_width", "beats"), [
    (2, 4, 64, 1.0), (2, 2, 64, 0.5), (1, 1, 64, 0.125), (4, 4, 64, 1.0), (3, 1, 128, 3 / 16)])
def test_engines_take_what_their_slots_take_and_at_most_the_port(slots, slot_bytes, data_width, beats):
    config = DeviceConfig(slots=slots, slot_bytes=slot_bytes, data_width=data_width)
    assert config.engine_beats == pytest.approx(beats)


def test_devices_with_slots_of_another_speed_are_other_devices():
    assert len({DeviceConfig(slot_bytes=value).digest() for value in (1, 2, 4)}) == 3
