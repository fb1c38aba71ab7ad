"""Verilog for vendors' tools: the clock's arithmetic, the filled templates, and yosys' opinion of the whole."""

import re
from fractions import Fraction

import pytest

from gateware.board import vendor
from gateware.config import DeviceConfig
from morphnic.errors import InputError
from tests.gateware.board.tiny import TinyCore

SMALL = DeviceConfig(ports=2, data_width=32, tenants=2, slots=1, pages=32, classifier_entries=1, clock_hz=125_000_000)


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
    assert found == {"lut": 3, "carry4": 3, "ff": 9, "lutram": 13, "shift": 8, "bram36": 10.5, "dsp": 2}


@pytest.mark.slow
def test_yosys_takes_core_wrapper_and_clock_for_a_xilinx_part(tmp_path):
    """With a small core: the device itself takes yosys minutes."""
    report = vendor.export(SMALL, tmp_path, make_core=lambda config: TinyCore(), progress=lambda line: None)
    # Two clocks: the device's, and the input, which watches the lock.
    assert (report.xilinx["cells"]["MMCME2_BASE"], report.xilinx["cells"]["BUFG"]) == (1, 2)
    assert report.xilinx["ff"] == 8 + 2 + 2 + 4  # counter, line and lamp, reset, watch of the lock
    assert (report.xilinx["cells"]["IBUF"], report.xilinx["cells"]["OBUF"]) == (2, 4)
