"""Window snapshots: round trips, their fields against the register map, and what is refused."""

import pytest

from device_link.operations import MalformedMessage
from device_link.registers import register_map
from device_link.window import Window, WindowRow


def make_window(tenants=3):
    rows = tuple(WindowRow(*range(16 * tenant, 16 * tenant + 16)) for tenant in range(tenants))
    return Window(5, 0x1_2345_6789, 100_000, 3, 2, 0xABCD, rows)


def test_window_survives_the_wire():
    window = make_window()
    assert Window.decode(window.encode()) == window
    assert window.to_words()[0] == 0x4D570203


def test_window_rows_have_the_registers_of_the_map_in_order():
    block = register_map().block("snapshot")
    assert tuple(block.template) == WindowRow.__slots__
    assert [register.address for register in block.template.values()] == [
        block.address + 4 * place for place in range(16)]


def test_window_flags_are_those_of_the_map():
    fields = register_map().block("snapshot").template["flags"].fields
    names = ["backpressured", "is_sequential", "missing_slo", "engine_bound", "bandwidth_bound", "pages_bound",
             "host_bound", "is_strided", "host_cpu", "host_memory"]
    assert [*names, "latency_sum_high"] == list(fields)
    for name in names:
        field = fields[name]
        row = WindowRow(*([0] * 15), ((1 << field.width) - 1) << field.lsb)
        assert {other: int(getattr(row, other)) for other in names if getattr(row, other)} == {
            name: (1 << field.width) - 1}


def test_window_figures_that_share_a_word_are_taken_apart():
    row = WindowRow(*([0] * 7), 0x0028_0009, 0, 0, 0x8000_0001, 0, 0, 0x0005_0003, 0, 0xFE00_0000)
    assert (row.queue_depth_max, row.burstiness) == (9, 2.5)
    assert (row.depth, row.burst) == (3, 5)
    assert row.latency_sum == 0xFE_8000_0001


@pytest.mark.parametrize("damage", [
    lambda words: words[:-1], lambda words: [*words, 0], lambda words: [words[0] + 0x100, *words[1:]],
    lambda words: [0, *words[1:]], lambda words: words[:4], lambda words: [],
])
def test_window_of_another_form_is_refused(damage):
    with pytest.raises(MalformedMessage):
        Window.from_words(damage(make_window().to_words()))
