"""cocotb: the skid buffer passes everything on, in order, under random pauses on both sides."""

import random

import cocotb

from tests.hdl.bench import Bench, parameters
from tests.hdl.cover import CoverGroup
from tests.hdl.stimulus import Sink, Source, reset, until


def build(width):
    from gateware.stream.skid import SkidBuffer

    return SkidBuffer(width)


BENCH = Bench(__name__, build, model={"width": (16, 1, 8, 64)},
              traffic={"count": (300, 1000), "idle": (0.4, 0.0, 0.9), "busy": (0.5, 0.0, 0.9)},
              also=[{"idle": 0.0, "busy": 0.9}, {"idle": 0.9, "busy": 0.0}, {"width": 1}])

PAUSES = {"none": range(1), "one": range(1, 2), "more": range(2, 10_000)}
COVER = CoverGroup("skid: pauses", {"gap before": PAUSES, "held back": PAUSES}, crosses=[("gap before", "held back")])


@cocotb.test()
async def everything_passes_in_order(dut):
    given, rng = parameters(), random.Random(cocotb.RANDOM_SEED)
    await reset(dut, "i__valid", "i__payload", "o__ready")
    source = Source(dut, "i", lambda: rng.random() < given["idle"])
    sink = Sink(dut, "o", lambda: rng.random() < given["busy"])
    source.words += [rng.getrandbits(given["width"]) for _ in range(given["count"])]
    await until(dut, lambda: len(sink.words) >= given["count"], 100 * given["count"], "the transfer")
    assert sink.words == source.words
    for gap, stall in zip(source.gaps, sink.stalls, strict=True):
        COVER.sample(**{"gap before": gap, "held back": stall})


@cocotb.test()
async def a_word_passes_in_every_cycle(dut):
    await reset(dut, "i__valid", "i__payload", "o__ready")
    source, sink = Source(dut, "i"), Sink(dut, "o")
    source.words += [index % 2 for index in range(100)]
    await until(dut, lambda: len(sink.words) == 100, 110, "a hundred words")
    assert sink.cycles[-1] - sink.cycles[0] == 99
