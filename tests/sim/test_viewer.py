"""The viewer's save file shows enums by name and structures field by field, and names signals that the waveform has."""

import re
from pathlib import Path

import pytest
from amaranth import *
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.stream.packet import FlowClass, PacketHeader
from sim.build import to_verilog
from sim.viewer import read_enums, write_save_file


class Colour(enum.Enum, shape=2):
    RED = 0
    BLUE = 2


def another_colour():
    """An enum of the same name with other members."""
    class Colour(enum.Enum, shape=1):
        GREEN = 0
        VERY_GREEN = 1
    return Colour


class Part(wiring.Component):
    """A signal that holds an enum."""

    go: In(1)
    busy: Out(1)

    def __init__(self, kind):
        self.kind = kind
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        colour = Signal(self.kind)
        first, second = self.kind
        m.d.sync += colour.eq(Mux(self.go, second, first))
        m.d.comb += self.busy.eq(colour == second)
        return m


class Whole(wiring.Component):
    """Headers pass; two parts have signals of one name, and enums of one name."""

    i: In(stream.Signature(PacketHeader))
    o: Out(stream.Signature(PacketHeader))

    def elaborate(self, platform):
        m = Module()
        wiring.connect(m, wiring.flipped(self.i), wiring.flipped(self.o))
        for name, kind in (("left", Colour), ("right", another_colour())):
            m.submodules[name] = part = Part(kind)
            m.d.comb += part.go.eq(self.i.valid)
        return m


@pytest.fixture
def saved(tmp_path):
    """Save file of a waveform with every signal of the Verilog, made without a simulator."""
    (tmp_path / "top.v").write_text(to_verilog(Whole()))
    (tmp_path / "wave.vcd").write_text(declarations((tmp_path / "top.v").read_text()))
    return write_save_file(tmp_path / "wave.vcd", tmp_path / "top.v")


def declarations(verilog):
    """The head of a VCD file as Verilator writes it."""
    lines = ["$scope module $rootio $end", "$var wire 1 ! clk $end", "$upscope $end"]
    for name, body in re.findall(r"^module \\?(\S+?)\s*\((.*?)^endmodule", verilog, re.S | re.M):
        scopes = name.split(".")
        lines += [f"$scope module {scope} $end" for scope in scopes]
        for high, signal in re.findall(r"^  (?:wire|reg) (?:\[(\d+):0\] )?\\?(\S+?)\s*(?:;|=)", body, re.M):
            lines.append(f"$var wire {int(high or 0) + 1} # {signal} $end")
        lines += ["$upscope $end"] * len(scopes)
    return "\n".join([*lines, "$enddefinitions $end", ""])


def test_enums_are_read_with_their_module(tmp_path):
    enums = read_enums(to_verilog(Whole()))
    assert enums["top.i__payload.flow_class"].values == {member.value: member.name for member in FlowClass}
    assert enums["top.left.colour"].values == {0: "RED", 2: "BLUE"}
    assert enums["top.left.colour"].width == 2
    assert enums["top.right.colour"].values == {0: "GREEN", 1: "VERY_GREEN"}


def test_header_is_a_group_of_its_fields_and_its_class_has_names(saved):
    text = saved.read_text()
    group = text[text.index("-i__payload"):text.rindex("-i__payload")]
    for field in ("tenant[5:0]", "epoch[7:0]", "timestamp[31:0]", "flow_class[3:0]"):
        assert f"top.i__payload.{field}" in group
    (names,) = re.findall(r"^\^\d+ (.*)\n\+\{i__payload\.flow_class\}", text, re.M)
    assert "1 LATENCY" in Path(names).read_text().splitlines()


def test_enums_inside_parts_are_shown_with_their_names(saved):
    text = saved.read_text()
    (colours,) = re.findall(r"^\^\d+ (.*)\n\+\{left\.colour\} top\.left\.colour\[1:0\]$", text, re.M)
    assert Path(colours).read_text().split() == ["0", "RED", "2", "BLUE"]
    (others,) = re.findall(r"^\^\d+ (.*)\n\+\{right\.colour\} top\.right\.colour$", text, re.M)
    assert Path(others).read_text().split() == ["0", "GREEN", "1", "VERY_GREEN"]


def test_temporaries_are_left_out_and_every_name_is_in_the_waveform(saved):
    declared = {words[4] for words in map(str.split, saved.with_suffix(".vcd").read_text().splitlines())
                if words[:1] == ["$var"]}
    shown = re.findall(r"^\+\{[^}]*\} (\S+)$", saved.read_text(), re.M)
    assert shown
    for path in shown:
        name = re.sub(r"\[\d+:0\]$", "", path)
        assert name.split(".", 1)[1] in declared or name.rpartition(".")[2] in declared
        assert "$" not in name
