"""Probes by name: what there is, what a group stands for, and what is said of a name that does not exist."""

import json
import zlib

import pytest
from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from gateware.scope.probes import MAX_BITS, catalogue, choose, describe
from gateware.scope.scope import Scope
from morphnic.errors import InputError


class Colour(enum.Enum, shape=2):
    RED = 0
    BLUE = 2


class Inner(data.Struct):
    low: 3
    colour: Colour


class Outer(data.Struct):
    inner: Inner
    pair: data.ArrayLayout(4, 2)


class Block(wiring.Component):
    """Ports of every kind."""

    plain: In(8)
    kind: Out(Colour)
    bytes: In(stream.Signature(8)).array(2)
    packets: Out(stream.Signature(Outer))
    nothing: In(0)
    wide: In(MAX_BITS)


@pytest.fixture
def known():
    return catalogue({"block": Block(), "other": Block()})


def test_every_port_and_field_has_a_name(known):
    names = {name.removeprefix("block."): len(probe.signal) for name, probe in known.items() if name[:5] == "block"}
    assert names == {
        "plain": 8, "kind": 2, "bytes0.payload": 8, "bytes0.valid": 1, "bytes0.ready": 1, "bytes1.payload": 8,
        "bytes1.valid": 1, "bytes1.ready": 1, "packets.inner.low": 3, "packets.inner.colour": 2,
        "packets.pair.0": 4, "packets.pair.1": 4, "packets.valid": 1, "packets.ready": 1, "wide": MAX_BITS}
    for name in ("kind", "packets.inner.colour"):
        assert known[f"block.{name}"].values == {0: "RED", 2: "BLUE"}


def test_fields_are_their_own_bits_of_the_payload():
    block = Block()
    known = catalogue({"block": block})
    names = ["packets.inner.low", "packets.inner.colour", "packets.pair.0", "packets.pair.1"]
    shown = Signal(13)
    m = Module()
    m.d.comb += shown.eq(Cat(known[f"block.{name}"].signal for name in names))

    async def test(ctx):
        for value in (0, 1 << 12, 0b1010_0110_10_011, 0b0101_1001_01_100):
            ctx.set(Value.cast(block.packets.payload), value)
            assert ctx.get(shown) == value

    simulator = Simulator(m)
    simulator.add_testbench(test)
    simulator.run()


def test_group_stands_for_what_is_in_it_and_each_probe_is_taken_once(known):
    chosen = choose(["block.packets.inner", "block.plain", "block.packets"], known)
    assert [probe.name.removeprefix("block.") for probe in chosen] == [
        "packets.inner.low", "packets.inner.colour", "plain", "packets.pair.0", "packets.pair.1", "packets.valid",
        "packets.ready"]
    with pytest.raises(InputError, match=r"no probe 'block\.byte'"):
        choose(["block.byte"], known)  # the beginning of a name is no group


@pytest.mark.parametrize(("name", "message"), [
    ("block.plian", r"there is no probe 'block\.plian' in the device; did you mean block\.plain"),
    ("block.packet", r"did you mean block\.packets"),
    ("zzz", r"its blocks are block, other"),
])
def test_name_that_does_not_exist_is_refused_with_candidates(known, name, message):
    with pytest.raises(InputError, match=message):
        choose([name], known)


def test_more_bits_than_a_row_holds_are_refused(known):
    assert choose(["block.wide"], known)
    with pytest.raises(InputError, match=f"at most {MAX_BITS} bits together, not {MAX_BITS + 8}: name single fields"):
        choose(["block.wide", "block.plain"], known)


def test_more_rows_than_the_register_map_has_room_for_are_refused(known):
    with pytest.raises(InputError, match="scope_rows must be at most 2048 with 240 bits of probes, not 8192"):
        Scope(choose(["block.wide"], known), 8192)


def test_description_is_in_the_order_of_the_bits(known):
    chosen = choose(["block.kind", "other.bytes1"], known)
    assert json.loads(zlib.decompress(describe(chosen))) == {"schema": 1, "probes": [
        ["block.kind", 2, {"0": "RED", "2": "BLUE"}], ["other.bytes1.payload", 8], ["other.bytes1.valid", 1],
        ["other.bytes1.ready", 1]]}
