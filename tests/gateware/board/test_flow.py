"""The flow with the real tools, on a design that takes seconds; and what it keeps and refuses."""

import hashlib
import json
from dataclasses import replace

import pytest
from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from gateware.board import flow, tools
from gateware.board.board import find_board
from gateware.board.flow import board_design, build, component_design
from gateware.config import DeviceConfig
from gateware.stream.skid import SkidBuffer
from morphnic.errors import BuildError, InputError
from tests.gateware.board.placer import placer_failing_at
from tests.gateware.board.tiny import TinyCore

pytestmark = pytest.mark.slow


class Large(wiring.Component):
    """A memory of 40 block RAMs, of which the iCE40 HX8K has 32."""

    address: In(12)
    word: Out(40)
    write: In(1)

    def __init__(self, config):
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = memory.Memory(shape=40, depth=4096, init=[])
        read, write = store.read_port(), store.write_port()
        m.d.comb += [read.addr.eq(self.address), self.word.eq(read.data), write.addr.eq(self.address),
                     write.data.eq(self.word + 1), write.en.eq(self.write)]
        return m


def tiny(config):
    return TinyCore()


def skid(config):
    return SkidBuffer(config.data_width)


@pytest.fixture(scope="module")
def small():
    """The small board, whose tools are the quickest."""
    return find_board("ice40-hx8k-evn")


def test_design_reaches_a_bitstream_and_is_kept(small, tmp_path):
    design = board_design(small, make_core=tiny)
    said = []
    report = build(design, tmp_path, [1], progress=said.append)
    bitstream = tmp_path / report.bitstream["file"]
    # The iCE40's bitstream begins with a comment and the preamble.
    assert b"\x7e\xaa\x99\x7e" in bitstream.read_bytes()[:200]
    assert hashlib.sha256(bitstream.read_bytes()).hexdigest() == report.bitstream["sha256"]
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(report.document()))
    assert report.met
    assert report.use["core.divider"].ff == 8
    assert report.used["ICESTORM_LC"] >= report.use[""].lut4
    assert {hop.block for hop in report.seeds[0].path.hops} <= {"pll", "reset", "core", "core.divider", "board"}
    assert any("synthesised in" in line for line in said)

    before = (tmp_path / "seed-1" / "timing.json").stat().st_mtime_ns, (tmp_path / "top.json").stat().st_mtime_ns
    again = build(design, tmp_path, [1], progress=said.append)
    assert before == ((tmp_path / "seed-1" / "timing.json").stat().st_mtime_ns,
                      (tmp_path / "top.json").stat().st_mtime_ns)
    assert replace(again, synthesis_seconds=0) == replace(report, synthesis_seconds=0)
    assert "synthesis is as it was" in said[-2]


def test_changed_design_is_built_anew(small, tmp_path):
    build(component_design(small, skid, "skid"), tmp_path, [1])
    first = (tmp_path / "top.json").read_text()
    wide = replace(small, config=DeviceConfig(data_width=64))
    report = build(component_design(wide, skid, "skid"), tmp_path, [1])
    assert (tmp_path / "top.json").read_text() != first
    # Two entries and two flags; the harness has 66 bits in, and 66 out twice, of which the last one is the pin's.
    assert (report.use["dut"].ff, report.use["harness"].ff) == (2 * 64 + 2, 3 * 66)


@pytest.mark.parametrize(("large", "router"), [(1, "router2"), (1_000_000, "router1")])
def test_large_design_is_routed_by_router2(small, tmp_path, monkeypatch, large, router):
    monkeypatch.setattr(flow, "LARGE", large)
    build(component_design(small, skid, "skid"), tmp_path, [1])
    log = (tmp_path / "seed-1" / "nextpnr.log").read_text()
    assert ("Running router2" in log) == (router == "router2")


def test_clock_that_no_seed_holds_is_a_build_error_with_the_path(small, tmp_path):
    fast = board_design(replace(small, config=replace(small.config, clock_hz=400_000_000)), make_core=tiny)
    with pytest.raises(BuildError, match=r"no seed holds 4\d\d MHz, the best reaches .* critical path .* ns") as caught:
        build(fast, tmp_path, [1])
    assert caught.value.exit_code == 2
    document = json.loads((tmp_path / "report.json").read_text())
    assert (document["met"], document["bitstream"]) == (False, None)
    assert not (tmp_path / "ice40-hx8k-evn.bin").exists()
    assert build(fast, tmp_path, [1], timing_may_fail=True).bitstream is not None


def test_seed_that_cannot_be_routed_leaves_the_others(small, tmp_path, monkeypatch):
    placer = placer_failing_at(2, tmp_path)
    monkeypatch.setenv(tools.variable("nextpnr-ice40"), str(placer))
    report = build(board_design(small, make_core=tiny), tmp_path, [1, 2, 3])
    assert [seed.seed for seed in report.seeds] == [1, 3]
    ((number, reason),) = [(seed.seed, seed.reason) for seed in report.failed]
    assert number == 2
    assert "place and route ice40-hx8k-evn, seed 2: ERROR: no way left" in reason
    assert report.bitstream["seed"] in ("1", "3")
    assert not report.met, "every seed was asked for"
    document = json.loads((tmp_path / "report.json").read_text())
    assert [seed["seed"] for seed in document["failed"]] == [2]


def test_design_that_does_not_fit_is_a_build_error(small, tmp_path):
    with pytest.raises(BuildError, match=r"large, seed 1: ERROR.*ICESTORM_RAM.*; the netlist has .*, 40 block RAMs"):
        build(component_design(small, Large, "large"), tmp_path, [1])


def test_component_that_needs_more_than_parameters_is_refused(small):
    with pytest.raises(InputError, match="skid cannot be made from the parameters of ice40-hx8k-evn alone"):
        component_design(small, lambda config: SkidBuffer(), "skid")


@pytest.mark.parametrize("name", flow.COMPONENTS)
def test_every_named_component_exists(name):
    import importlib

    module, made = flow.COMPONENTS[name]
    assert hasattr(importlib.import_module(module), made)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ulx3s-85f", "ecpix5-85"])
def test_design_reaches_a_bitstream_for_ecp5(name, tmp_path):
    report = build(board_design(find_board(name), make_core=tiny), tmp_path, [1, 2])
    assert b"Part: " in (tmp_path / report.bitstream["file"]).read_bytes()[:200]
    assert [seed.seed for seed in report.seeds] == [1, 2]
    assert report.bitstream["seed"] == str(report.best.seed)
    assert report.met
    assert report.used["EHXPLLL"] == 1
