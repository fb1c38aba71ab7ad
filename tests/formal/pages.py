"""Contract of the writing side of a crosspoint's lists, on their ports: a beat goes where nobody else's is.

A page is *out* from the beat that it is taken for until it comes home. Assumed: only a beat that is put counts, and
what is put are packets, beat by beat, one after another; a page comes home only while it is out, and not that of the
packet under way; a packet shares a page only with the packet of its tenant that ended last, while that page is out; a
page is wanted only while one is vacant. All else is free: what is read, which pages come home and when, and how often
a beat is put before it counts, if it ever does. Of a cycle in which nothing is put, nothing is assumed.
"""

from amaranth import *

from gateware.config import PAGE_BEATS
from gateware.fabric.place import PAGE_DESCRIPTORS
from tests.formal.prover import Assert, Assume, free_inputs


class PagesContract(Elaboratable):
    """`dut` has the ports of `Chain(config)`."""

    def __init__(self, dut, config):
        self.dut, self.config = dut, config

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        free_inputs(m, dut)
        pages, w = self.config.pages, dut.w
        out = Signal(pages)
        owners = Array(Signal(range(self.config.tenants), name=f"owner_{page}") for page in range(pages))
        tails = Array(Signal(range(pages), name=f"tail_{tenant}") for tenant in range(self.config.tenants))
        ended = Signal(self.config.tenants)   # a packet of the tenant has ended, so that there is a tail
        under_way, tenant, before = Signal(), Signal.like(w.tenant), Signal.like(dut.beat_place)
        page, offset = dut.beat_place[(PAGE_BEATS - 1).bit_length():], dut.beat_place[:(PAGE_BEATS - 1).bit_length()]
        page_before, offset_before = before[len(offset):], before[:len(offset)]
        begins = Signal()
        tail = tails[w.tenant]
        m.d.comb += [
            begins.eq(Mux(w.first, ~w.placed.shares, offset_before == PAGE_BEATS - 1)),
            Assume(w.tenant < self.config.tenants), Assume(~w.write | w.put),
            Assume(~w.put | (w.first == ~under_way)), Assume(~(w.put & under_way) | (w.tenant == tenant)),
            Assume(~(w.put & w.first & w.placed.shares) | (
                ended.bit_select(w.tenant, 1) & out.bit_select(tail, 1) & (owners[tail] == w.tenant))),
            Assume(~(w.write & begins) | dut.vacant),
            Assume(~dut.home | out.bit_select(dut.home_page, 1)),
            Assume(~(dut.home & under_way) | (dut.home_page != page_before)),
            Assume(~(dut.home & w.first & w.write & w.placed.shares) | (dut.home_page != tail)),

            Assert(dut.vacant == ~out.all()),
            # Also of a beat that does not count: it is stored all the same.
            Assert(~(w.put & begins & dut.vacant) | ~out.bit_select(page, 1)),
            Assert(begins | ~(w.first | w.put) | (page == Mux(w.first, tail, page_before))),
            Assert(begins | ~w.write | (out.bit_select(page, 1) & (owners[page] == w.tenant))),
            Assert(~(w.first | w.put) | (offset == Mux(w.first, w.placed.start, (offset_before + 1)[:len(offset)]))),
            Assert(dut.descriptor_place == Cat(w.placed.slot, page)),
        ]
        assert len(dut.descriptor_place) == len(page) + (PAGE_DESCRIPTORS - 1).bit_length()
        with m.If(dut.home):
            m.d.sync += out.bit_select(dut.home_page, 1).eq(0)
        with m.If(w.write):
            m.d.sync += [under_way.eq(~w.end), tenant.eq(w.tenant), before.eq(dut.beat_place)]
            with m.If(begins):
                m.d.sync += [out.bit_select(page, 1).eq(1), owners[page].eq(w.tenant)]
            with m.If(w.end):
                m.d.sync += [tail.eq(page), ended.bit_select(w.tenant, 1).eq(1)]
        return m
