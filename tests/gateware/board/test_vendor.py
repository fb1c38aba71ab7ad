"""Verilog for vendors' tools: the clock's arithmetic, the filled templates, and yosys' opinion of the whole."""

import os
import re
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from amaranth import Module
from amaranth.lib import wiring

from gateware.board import vendor
from gateware.board.core import BoardCore
from gateware.config import DeviceConfig
from gateware.pcie.ultrascale import USER_BITS
from morphnic.errors import InputError
from sim.toolchain import find_toolchain
from tests.gateware.board.tiny import TinyCore

SMALL = DeviceConfig(ports=2, data_width=32, tenants=2, slots=1, pages=32, classifier_entries=1, clock_hz=125_000_000)
CARD = replace(SMALL, pcie_width=64, clock_hz=250_000_000)
STUB = Path(__file__).with_name("stub_pcie_ultrascale_plus.v")


class Ports(wiring.Component):
    """The ports of `BoardCore`, and a register behind one of them."""

    def __init__(self, config):
        super().__init__(dict(BoardCore(config, 0, 0).signature.members))

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.uart_tx.eq(self.uart_rx)
        return m


def lint(folder, config):
    """What Verilator says of a card's top level, with the stub in the place of the hard IP."""
    tools, wide = find_toolchain(), config.pcie_width == 512
    known = {"WIDTH": config.pcie_width, "LANES": vendor.lanes(config)} | {
        f"{name.upper()}_USER": bits[wide] for name, bits in USER_BITS.items()}
    waive = folder / "waive.vlt"  # what Amaranth writes is linted elsewhere; the block has outputs that nobody wants
    waive.write_text('`verilator_config\nlint_off -file "*/morphnic_core.v"\n' + "".join(
        f"lint_off -rule {rule}\n" for rule in ("PINCONNECTEMPTY", "UNUSEDSIGNAL", "PROCASSINIT", "ALWNEVER")))
    done = subprocess.run(
        [tools.verilator_binary, "--lint-only", "-Wall", *(f"-D{name}={value}" for name, value in known.items()),
         "--top-module", "morphnic_top", waive, folder / "morphnic_top.v", folder / "morphnic_core.v", STUB],
        capture_output=True, text=True, env=os.environ | {"VERILATOR_ROOT": str(tools.verilator_root)})
    assert (done.returncode == 0) == (not done.stderr), done.stderr
    return done.stderr


def write_card(config, folder, make_core=Ports):
    return vendor.export(config, folder, synthesise=False, pcie="ultrascale-plus", make_core=make_core,
                         progress=lambda line: None)



@pytest.mark.parametrize("asked", [125_000_000, 100_000_000, 156_250_000, 66_666_667, 250_000_000, 33_000_000])
def test_mmcm_gives_at_least_the_frequency_within_its_limits(asked):
    multiply, divide = vendor.mmcm(100_000_000, asked)
    assert 600_000_000 <= 100_000_000 * multiply <= 1_200_000_000
    assert 2 <= divide <= 128
    assert (8 * divide).denominator == 1
    assert asked <= Fraction(100_000_000 * multiply) / divide <= asked * Fraction(102, 100)


def test_frequency_that_cannot_be_made_is_refused():
    with pytest.raises(InputError, match="--clock must be a frequency that an MMCM makes from 100 MHz, not 900 MHz"):
        vendor.mmcm(100_000_000, 900_000_000)


@pytest.mark.slow
def test_files_are_filled_in_and_name_the_ports_of_the_core(tmp_path):
    report = vendor.export(SMALL, tmp_path, synthesise=False, progress=lambda line: None)
    texts = {name: (tmp_path / name).read_text() for name in report.files}
    assert not [name for name, text in texts.items() if name != "morphnic_core.v" and re.search(r"@\w+@", text)]
    assert ".CLKIN1_PERIOD(10.000), .CLKFBOUT_MULT_F(10.000), .DIVCLK_DIVIDE(1), .CLKOUT0_DIVIDE_F(8.000)" \
        in texts["clock_xilinx.v"]
    assert "create_clock -name clk_in -period 10.000 [get_ports clk_in]" in texts["morphnic_top.xdc"]
    assert report.clock_hz == report.config["clock_hz"] == 125_000_000
    ports = re.search(r"^module morphnic_core\(([^)]*)\)", texts["morphnic_core.v"], re.MULTILINE)[1]
    instance = re.search(r"morphnic_core core \((.*?)\);", texts["morphnic_top.v"], re.DOTALL)[1]
    assert set(re.findall(r"\.(\w+)\(", instance)) == {name.strip() for name in ports.split(",")}
    top = re.search(r"module morphnic_top \((.*?)\);", texts["morphnic_top.v"], re.DOTALL)[1]
    pins = set(re.findall(r"^ +(?:in|out)put +wire.*? (\w+),? *(?://.*)?$", top, re.MULTILINE))
    assert len(pins) == 4
    for constraints in ("morphnic_top.xdc", "morphnic_top.sdc"):
        used = re.findall(r"get_ports \{?([^]}]*)", texts[constraints])
        named = {re.sub(r"\[.*", "", pin) for group in used for pin in group.split()}
        assert named <= pins, (named, pins)


def test_use_is_summed_by_kind():
    cells = {"LUT1": 1, "LUT6": 2, "CARRY4": 3, "FDRE": 4, "FDSE": 5, "RAM32M": 6, "RAM64X1D": 7, "SRL16E": 8,
             "RAMB36E1": 9, "RAMB18E1": 3, "DSP48E1": 2, "IBUF": 4, "MUXF7": 1}
    found = vendor.xilinx_use({"design": {"num_cells_by_type": cells}})
    assert found.pop("cells") == cells
    assert found == {"lut": 3, "carry4": 3, "carry8": 0, "ff": 9, "lutram": 13, "shift": 8, "bram36": 10.5, "dsp": 2}


@pytest.mark.slow
def test_yosys_takes_core_wrapper_and_clock_for_a_xilinx_part(tmp_path):
    """With a small core: the device itself takes yosys minutes."""
    report = vendor.export(SMALL, tmp_path, make_core=lambda config: TinyCore(), progress=lambda line: None)
    # Two clocks: the device's, and the input, which watches the lock.
    assert (report.xilinx["cells"]["MMCME2_BASE"], report.xilinx["cells"]["BUFG"]) == (1, 2)
    assert report.xilinx["ff"] == 8 + 2 + 2 + 4  # counter, line and lamp, reset, watch of the lock
    assert (report.xilinx["cells"]["IBUF"], report.xilinx["cells"]["OBUF"]) == (2, 4)


@pytest.mark.parametrize(("width", "clock_hz", "lanes"), [
    (64, 125_000_000, 1), (64, 250_000_000, 2), (128, 250_000_000, 4), (256, 125_000_000, 4), (512, 250_000_000, 16)])
def test_top_level_of_a_card_fits_the_core_and_the_ports_of_the_hard_ip(tmp_path, width, clock_hz, lanes):
    config = replace(CARD, pcie_width=width, clock_hz=clock_hz)
    report = write_card(config, tmp_path)
    assert lint(tmp_path, config) == ""
    texts = {name: (tmp_path / name).read_text() for name in report.files}
    assert not [name for name, text in texts.items() if name != "morphnic_core.v" and re.search(r"@\w+@", text)]
    assert report.clock_hz == clock_hz
    settings = dict(re.findall(r"CONFIG\.(\w+) \{(.*?)\}", texts["morphnic_pcie.tcl"]))
    assert (settings["PL_LINK_CAP_MAX_LINK_WIDTH"], settings["axisten_if_width"]) == (f"X{lanes}", f"{width}_bit")
    assert settings["axisten_freq"] == f"{clock_hz / 1e6:g}"
    assert (settings["PF0_MSIX_CAP_TABLE_OFFSET"], settings["PF0_MSIX_CAP_PBA_OFFSET"]) == ("00020000", "00020100")
    assert (settings["vendor_id"], settings["PF0_DEVICE_ID"]) == ("1AF4", "10F4")
    straddled = [name for name, value in settings.items() if name.endswith("STRADDLE") and value == "true"]
    assert straddled == [f"AXISTEN_IF_EXT_512_{name}_STRADDLE" for name in ("RQ", "RC") if width == 512]


@pytest.mark.parametrize(("right", "wrong", "fault"), [
    (".m_axis_rc_tdata(", ".m_axis_rc_data(", "PINNOTFOUND"),                                # the hard IP has it not
    (", .cfg_flr_done(cfg_flr_done),\n    .discontinued", ",\n    .discontinued", "PINMISSING"),  # of the core
    (".rq__tready(s_axis_rq_tready[0])", ".rq__tready(s_axis_rq_tready)", "WIDTHTRUNC"),     # four bits of the hard IP
    ("wire [62-1:0] s_axis_rq_tuser", "wire [60:0] s_axis_rq_tuser", "WIDTHEXPAND"),
    (".user_clk(user_clk)", ".user_clk()", "UNDRIVEN"),
])
def test_top_level_that_does_not_fit_is_refused_by_lint(tmp_path, right, wrong, fault):
    write_card(CARD, tmp_path)
    top = tmp_path / "morphnic_top.v"
    text = top.read_text()
    assert right in text
    top.write_text(text.replace(right, wrong, 1))
    assert fault in lint(tmp_path, CARD)


@pytest.mark.long
def test_core_of_a_card_is_the_device_with_its_endpoint(tmp_path):
    write_card(CARD, tmp_path, make_core=None)
    assert lint(tmp_path, CARD) == ""


@pytest.mark.parametrize(("changes", "message"), [
    ({"clock_hz": 200_000_000}, "--clock must be 250 MHz .*not 200 MHz"),
    ({"clock_hz": 125_000_000, "pcie_width": 512}, "--clock must be 250 MHz .*not 125 MHz"),
    ({"pcie_width": 0}, "pcie_width must be 64, 128, 256 or 512 with --pcie, not 0")])
def test_card_that_the_hard_ip_does_not_have_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        write_card(replace(CARD, **changes), tmp_path)
