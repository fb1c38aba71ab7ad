"""Reports against what real runs of yosys and nextpnr left in `recorded/` (reduced to the entries that are read)."""

import json
import re
from pathlib import Path

import pytest
from amaranth.back import rtlil

from gateware.board.harness import Harness
from gateware.board.netlist import Blocks, Use, aliases, count, read_hierarchy
from gateware.board.report import Report, Seed, read_path, read_timing
from morphnic.errors import BuildError
from tests.gateware.board.tiny import TinyCore

RECORDED = Path(__file__).parent / "recorded"
#: Blocks of the recorded designs.
TINY = ["clock_pin", "core", "pll", "reset", "pin_led_0", "pin_led_1"]


def recorded(name):
    return json.loads((RECORDED / name).read_text())


def test_fmax_is_that_after_routing_and_of_the_device_clock():
    """nextpnr's log of this run said 357.65 MHz before and 295.42 MHz after routing."""
    fmax, clocks, _ = read_timing(recorded("ulx3s_timing.json"), Blocks(TINY, "board"), {"device_clock", "clk"})
    assert fmax == pytest.approx(295.42, abs=0.01)
    assert clocks == pytest.approx({"$glbnet$clk": 295.42, "$glbnet$clock_in": 290.28}, abs=0.01)


def test_critical_path_is_that_of_the_device_clock_and_adds_up():
    fmax, _, path = read_timing(recorded("ulx3s_timing.json"), Blocks(TINY, "board"), {"clk"})
    assert (path.start, path.end) == ("core.c_TRELLIS_FF_Q", "core.heartbeat_TRELLIS_FF_Q")
    assert path.total_ns == pytest.approx(1e3 / fmax, abs=0.01)
    assert path.logic_ns + path.routing_ns == pytest.approx(path.total_ns, abs=0.002)
    assert path.levels == sum(hop.kind == "logic" for hop in path.hops) > 0
    assert {hop.block for hop in path.hops} == {"core"}
    assert path.hops[0].kind == "clk-to-q"
    assert path.hops[-1].kind == "setup"


def test_clock_behind_a_pin_buffer_is_found():
    fmax, _, path = read_timing(recorded("counters_timing.json"), Blocks(["dut", "dut.registers"], "harness"), {"clk"})
    assert fmax == pytest.approx(121.12, abs=0.01)
    assert path.start == "dut.port$76$0_TRELLIS_FF_Q"
    assert re.match(r"dut\.port.* -> dut\.bus__r_data_TRELLIS_FF_Q_15: 8\.26 ns = 2\.03 logic in 6 levels", str(path))


def test_report_without_the_clock_is_an_error_that_names_what_is_there():
    with pytest.raises(BuildError, match=r"no clock of fast: it found \$glbnet\$clk, \$glbnet\$clock_in"):
        read_timing(recorded("ulx3s_timing.json"), Blocks(TINY, "board"), {"fast"})


def test_registers_of_the_netlist_are_those_that_were_placed():
    use = count(recorded("ulx3s_netlist.json"), Blocks(TINY, "board"), "top")
    placed = recorded("ulx3s_timing.json")["utilization"]
    assert use[""].ff == placed["TRELLIS_FF"]["used"]
    assert use[""].bram == placed["DP16KD"]["used"] == 0
    # nextpnr adds a cell at each end of the two carry chains, and leads signals through LUTs.
    assert use[""].lut4 <= placed["TRELLIS_COMB"]["used"] <= use[""].lut4 + 10
    assert use["core"].ff == 25  # a counter of 24 bits, and the serial line
    assert use["core"].carry == 24
    outer = [one for path, one in use.items() if path and "." not in path]
    assert sum(outer, Use()) == use[""]


def test_clock_has_all_its_names():
    names = aliases(recorded("ulx3s_netlist.json"), "top", "device_clock")
    assert {"device_clock", "core.clk"} <= names
    assert "clock_in" not in names
    with pytest.raises(BuildError, match="the netlist has no net 'nothing'"):
        aliases(recorded("ulx3s_netlist.json"), "top", "nothing")


@pytest.mark.parametrize(("cell", "block"), [
    ("dut.fabric.output_1.grant_LUT4_Z", "dut.fabric.output_1"),
    ("dut.fabric.output_10.grant", "dut.fabric.output_10"),
    ("dut.fabric.output_1x.grant", "dut.fabric"),
    ("dut.fabric_like", "dut"),
    ("dut.fabric", "dut"),
    ("dut.fabric_TRELLIS_FF_Q", "dut"),
    ("dut.link.x.y", "dut.link"),
    ("dut.zz", "dut"),
    ("dut", "harness"),
    ("harness_folded_TRELLIS_FF_Q", "harness"),
    ("aaa", "harness"),
])
def test_cell_lies_in_the_innermost_block_whose_path_it_begins_with(cell, block):
    paths = ["dut", "dut.fabric", "dut.fabric.output_1", "dut.fabric.output_10", "dut.link"]
    assert Blocks(paths, "harness").of(cell) == block


def test_blocks_are_counted_with_their_sub_blocks():
    cells = {"a.b.x": "LUT4", "a.b.y": "TRELLIS_FF", "a.z": "CCU2C", "a.m": "TRELLIS_DPR16X4", "q": "DP16KD",
             "a.d": "MULT18X18D", "a.b.s": "SB_DFFESR", "a.b.t": "SB_RAM40_4KNR", "a.b.u": "SB_LUT4", "p": "TRELLIS_IO"}
    netlist = {"modules": {"top": {"cells": {name: {"type": kind} for name, kind in cells.items()}}}}
    assert count(netlist, Blocks(["a", "a.b"], "rest"), "top") == {
        "": Use(lut4=8, carry=2, lutram=4, ff=2, bram=2, dsp=1),
        "a": Use(lut4=8, carry=2, lutram=4, ff=2, bram=1, dsp=1),
        "a.b": Use(lut4=2, ff=2, bram=1),
        "rest": Use(bram=1),
    }


def test_hierarchy_and_inputs_are_read_from_what_amaranth_writes():
    text = rtlil.convert(Harness(TinyCore()), name="top", emit_src=False)
    paths, inputs = read_hierarchy(text, "top")
    assert paths == {"dut", "dut.divider"}
    assert inputs == {"dut.clk", "dut.rst", "dut.uart_rx", "dut.divider.clk", "dut.divider.rst"}


def test_net_between_blocks_belongs_to_the_one_that_drives_it():
    """`a.x` drives the input `b.y`; both are the net `wire` outside, and yosys may name the cell after any of them."""
    nets = {"a.x": [7], "b.y": [7], "wire": [7], "b.deep.z": [7], "b.own": [8], "word": ["0", 9]}
    blocks = Blocks(["a", "b", "b.deep"], "top", inputs={"b.y"}, nets=nets)
    for name in ("a.x", "b.y", "wire", "b.deep.z"):
        assert blocks.of(f"{name}_TRELLIS_FF_Q_DI_LUT4_Z") == "a", name
    assert blocks.of("b.own_SB_DFFESR_Q") == "b"
    assert blocks.of("word_LUT4_Z") == "top"


def test_net_of_which_only_the_names_inside_its_reader_are_left_belongs_outside():
    blocks = Blocks(["a", "a.b"], "harness", inputs={"a.b.port"}, nets={"a.b.port": [3], "a.b.copy": [3]})
    assert blocks.of("a.b.copy_TRELLIS_FF_Q") == "a"


def seeds(*rates):
    path = read_path(recorded("counters_timing.json")["critical_paths"][0]["path"], Blocks(["dut"], "harness"))
    return tuple(Seed(number, rate, {"clk": rate}, 1.0, path) for number, rate in enumerate(rates, 1))


def report(*rates, clock_hz=125_000_000):
    return Report("ulx3s-85f", "fabric", clock_hz, {}, 0xB01D, {}, 1.0, {"": Use()}, {}, {}, seeds(*rates))


def test_worst_and_best_seed_are_told_apart():
    found = report(130.0, 124.9, 151.0)
    assert (found.worst.seed, found.best.seed, found.met) == (2, 3, False)
    assert report(130.0, 125.0).met
    document = found.document()
    assert (document["fmax_worst_mhz"], document["fmax_best_mhz"], document["met"]) == (124.9, 151.0, False)
    assert (document["schema"], document["build_id"]) == (1, "0x000000000000b01d")
    assert json.loads(json.dumps(document))["seeds"][1]["path"]["levels"] == 6
