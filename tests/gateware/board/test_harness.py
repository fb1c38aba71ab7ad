"""The measuring harness: every input bit is reached from its pin, every output bit reaches its pin."""

import pytest
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.board.harness import Harness
from tests.gateware.simulation import simulate


class Mirror(wiring.Component):
    """Each input bit on an output bit of its own; streams in both directions, so that flows are turned."""

    word: In(5)
    copy: Out(5)
    sink: In(stream.Signature(3))
    source: Out(stream.Signature(3))

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.copy.eq(self.word)
        m.d.comb += [self.source.payload.eq(self.sink.payload), self.source.valid.eq(self.sink.valid),
                     self.sink.ready.eq(self.source.ready)]
        return m


BITS = 5 + 3 + 1 + 1  # word, payload, valid, ready: as many in as out


def run(bits):
    """What comes out for `bits`, and then zeros until the harness is empty."""
    dut = Harness(Mirror())
    seen = []

    async def testbench(ctx):
        for bit in [*bits, *[0] * (3 * BITS)]:
            ctx.set(dut.serial_in, bit)
            await ctx.tick()
            seen.append(ctx.get(dut.serial_out))

    simulate(dut, testbench)
    return seen


def model(bits):
    """The shift register, the identity, the capture, the folding, cycle by cycle."""
    # Order of the members: as `flatten` gives them; the wires in `order` lead input bit -> output bit.
    inputs = ["word"] * 5 + ["payload"] * 3 + ["valid"] + ["ready"]
    shift, caught, folded = [0] * BITS, [0] * BITS, [0] * BITS
    seen = []
    assert len(inputs) == BITS
    for bit in [*bits, *[0] * (3 * BITS)]:
        word, payload, valid, ready = shift[:5], shift[5:8], shift[8:9], shift[9:10]
        outputs = word + ready + payload + valid
        before = [shift[-1], *folded[:-1]]
        folded = [one ^ two for one, two in zip(before, caught, strict=True)]
        caught = outputs
        shift = [bit, *shift[:-1]]
        seen.append(folded[-1])
    return seen


@pytest.mark.parametrize("bits", [[1], [1, 0, 1, 1], [1] * 17, [0, 1] * 9])
def test_pin_to_pin_equals_the_model(bits):
    assert run(bits) == model(bits)


def test_component_without_inputs_or_outputs_of_its_own_width_is_measured_too():
    class Counter(wiring.Component):
        value: Out(4)

        def elaborate(self, platform):
            m = Module()
            m.d.sync += self.value.eq(self.value + 1)
            return m

    from amaranth.back import rtlil

    assert "module \\top.dut" in rtlil.convert(Harness(Counter()), name="top")
