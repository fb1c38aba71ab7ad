"""`DeviceConfig`: what it refuses, and what follows from the parameters of the engine slots."""

import pytest

from gateware.config import DeviceConfig


@pytest.mark.parametrize("value", [0, 3, 5, 8, -1])
def test_slot_bytes_that_no_shard_is_built_for_are_refused(value):
    with pytest.raises(ValueError, match=f"slot_bytes must be 1, 2 or 4, not {value}"):
        DeviceConfig(slot_bytes=value)


@pytest.mark.parametrize("value", [0, 17, -1])
def test_rules_that_the_register_map_has_no_room_for_are_refused(value):
    with pytest.raises(ValueError, match=rf"rules must be in 1\.\.16, not {value}"):
        DeviceConfig(rules=value)


@pytest.mark.parametrize("name", ["histograms", "access_patterns", "forecasts"])
def test_what_a_device_may_leave_out_is_said_by_a_boolean(name):
    with pytest.raises(ValueError, match=f"{name} must be False or True, not 1"):
        DeviceConfig(**{name: 1})
    assert DeviceConfig(**{name: False}).digest() != DeviceConfig().digest()


@pytest.mark.parametrize(("slots", "slot_bytes", "data_width", "beats"), [
    (2, 4, 64, 1.0), (2, 2, 64, 0.5), (1, 1, 64, 0.125), (4, 4, 64, 1.0), (3, 1, 128, 3 / 16)])
def test_engines_take_what_their_slots_take_and_at_most_the_port(slots, slot_bytes, data_width, beats):
    config = DeviceConfig(slots=slots, slot_bytes=slot_bytes, data_width=data_width)
    assert config.engine_beats == pytest.approx(beats)


def test_devices_with_slots_of_another_speed_are_other_devices():
    assert len({DeviceConfig(slot_bytes=value).digest() for value in (1, 2, 4)}) == 3


def test_probes_are_a_tuple_whatever_they_came_as():
    names = ("manager.changed", "link.rx")
    config = DeviceConfig(scope_probes=names)
    assert DeviceConfig(scope_probes=list(names)) == config, "as JSON has it"
    assert hash(config) != hash(DeviceConfig())
    assert len({config.digest(), DeviceConfig(scope_probes=names[::-1]).digest(), DeviceConfig().digest()}) == 3


@pytest.mark.parametrize(("name", "value", "rule"), [
    ("scope_probes", "link.rx", "a tuple of names"), ("scope_probes", (1,), "a tuple of names"),
    ("scope_rows", 8, r"a power of two in 16\.\.16384"), ("scope_rows", 48, "a power of two"),
    ("scope_rows", 32768, "a power of two")])
def test_scope_that_cannot_be_built_is_refused(name, value, rule):
    with pytest.raises(ValueError, match=f"{name} must be {rule}"):
        DeviceConfig(**{name: value})
