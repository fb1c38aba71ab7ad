"""Crosspoint: the buffer between one input and one output, with a queue per tenant made of shared pages.

Contract: store and forward. A packet is booked with all its pages in the cycle of its first beat (`reserve`), written
a beat a cycle, and seen by the output from the cycle after its `end`; the next may begin in that cycle. The output
looks at one tenant a cycle (`look`), claims its oldest packet in the same cycle (`claim`), and reads beats by address
(see `reader`). Order within a tenant is kept. There are no errors: what does not fit is not booked.

Pages are shared by consecutive packets of one tenant: a page is full when 16 beats are in it or 8 packets end in it,
and the next packet then begins a new page; both sides follow this rule, so neither stores where a packet begins. A
packet's descriptor lies in the page in which it ends, so that the output finds the next descriptor of a queue without
knowing how long the packet before it is. The last page of a queue that ran empty comes home within T + 5 cycles (see
`account`). `room` is the credit of each tenant (see `credit`).
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import PAGE_BEATS, DeviceConfig
from ..manager.allocation import AllocationSignature
from ..stream.packet import PacketHeader, beat_layout
from .account import Account, BookingSignature
from .chain import Chain, WriteSignature
from .place import PAGE_DESCRIPTORS
from .waiting import Waiting

__all__ = ["Crosspoint", "ReadSignature", "stored_header"]

#: Members of a header that are stored as they are: the others are known from the queue that the packet is in.
STORED = ("epoch", "flow_hash", "flow_class", "timestamp")


def stored_header(config: DeviceConfig):
    """Layout of a descriptor: at 64 bits 72 bits, the width of two block RAMs.

    extent: the length less one byte, so that its upper bits are the number of beats behind the first. several: there
    are any.
    """
    members = data.Layout.cast(PacketHeader).members
    return data.StructLayout({"extent": range(config.max_packet_bytes), "several": 1,
                              **{name: members[name] for name in STORED}})


class ReadSignature(wiring.Signature):
    """An output's side of a crosspoint, seen from the output.

    ready[t]: a complete packet of tenant *t* waits. several[t]: many do (see `waiting`).
    look: the oldest waiting packet of `tenant` is looked up; `fresh` (it begins at page `first`), `skip` (it begins
        on a new page) answer in the same cycle. claim: it is taken out of the queue.
    read: the beat at `address` is read.
    move: what was read last comes out, in the next cycle and until the next `move`: the beat with `beat_wanted`, the
        header with `header_wanted`; without, zeros, so that a column needs no multiplexer.
    link_of, link; follow_of, follow: the page that follows a page, in the same cycle.
    free: `freed_page` of `freed_tenant` has been read.
    held[n], held_tenant[n]: a claimed packet of that tenant has beats that were not read yet.
    """

    def __init__(self, config: DeviceConfig):
        tenant, page = range(config.tenants), range(config.pages)
        super().__init__({
            "ready": In(config.tenants),
            "several": In(config.tenants),
            "tenant": Out(tenant),
            "look": Out(1),
            "claim": Out(1),
            "fresh": In(1),
            "skip": In(1),
            "first": In(page),
            "move": Out(1),
            "header_wanted": Out(1),
            "beat_wanted": Out(1),
            "header": In(stored_header(config)),
            "read": Out(1),
            "address": Out(range(config.pages * PAGE_BEATS)),
            "beat": In(beat_layout(config)),
            "link_of": Out(page),
            "link": In(page),
            "follow_of": Out(page),
            "follow": In(page),
            "free": Out(1),
            "freed_page": Out(page),
            "freed_tenant": Out(tenant),
            "held": Out(2),
            "held_tenant": Out(tenant).array(2),
        })


class Crosspoint(wiring.Component):
    """Buffer of one (input, output); `credit`: with the ports `room` and `own`, which the host's row needs."""

    def __init__(self, config: DeviceConfig, *, credit: bool = False):
        self._config = config
        self._credit = credit
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "booking": In(BookingSignature(config)),
            "w": In(WriteSignature(config)),
            "r": In(ReadSignature(config)),
            **({"room": Out(config.tenants), "own": Out(config.tenants)} if credit else {}),
        })

    def elaborate(self, platform):
        m = Module()
        config, w, r = self._config, self.w, self.r
        m.submodules.account = account = Account(config, credit=self._credit)
        m.submodules.chain = chain = Chain(config)
        m.submodules.waiting = waiting = Waiting(config)
        wiring.connect(m, wiring.flipped(self.allocation), account.allocation)
        wiring.connect(m, wiring.flipped(self.booking), account.booking)
        wiring.connect(m, wiring.flipped(self.w), chain.w)
        writing = Signal()   # between a packet's first beat and its last
        with m.If(w.write):
            m.d.sync += writing.eq(~w.end)
        m.d.comb += [
            waiting.arrive.eq(w.write & w.end),
            waiting.arrived.eq(w.tenant),
            waiting.claim.eq(r.claim),
            waiting.claimed.eq(r.tenant),
            r.ready.eq(waiting.ready),
            r.several.eq(waiting.several),
            account.waiting.eq(waiting.ready),
            account.writing.eq(writing),
            account.writer.eq(w.tenant),
            account.closings_of.eq(r.tenant),
            chain.r_closings.eq(account.closings),
            chain.walk_tenant.eq(account.walk_tenant),
            chain.home.eq(account.home),
            chain.home_page.eq(account.home_page),
            account.walk_page.eq(chain.walk_page),
        ]
        if self._credit:
            m.d.comb += [self.room.eq(account.room), self.own.eq(account.own)]
        m.d.comb += [account.held_tenant[n].eq(tenant) for n, tenant in enumerate(r.held_tenant)]
        for name in ("free", "freed_page", "freed_tenant", "held"):
            m.d.comb += getattr(account, name).eq(getattr(r, name))
        for name in ("tenant", "claim", "link_of", "follow_of"):
            m.d.comb += getattr(chain, f"r_{name}").eq(getattr(r, name))
        for name in ("fresh", "skip", "first", "link", "follow"):
            m.d.comb += getattr(r, name).eq(getattr(chain, f"r_{name}"))
        self._store(m, chain)
        return m

    def _store(self, m, chain):
        """Beats and descriptors in block RAM; what is read passes one more register before any logic."""
        config, w, r = self._config, self.w, self.r
        # Nothing is read in the cycle in which it is written: what would come out then need not be defined, which
        # spares a bypass around each block RAM. Synthesis believes that only of a register behind a port.
        attributes = {"no_rw_check": 1}
        m.submodules.beats = beats = memory.Memory(
            shape=beat_layout(config), depth=config.pages * PAGE_BEATS, init=[], attrs=attributes)
        m.submodules.descriptors = descriptors = memory.Memory(
            shape=stored_header(config), depth=config.pages * PAGE_DESCRIPTORS, init=[], attrs=attributes)
        beat_write, beat_read = beats.write_port(), beats.read_port(domain="comb")
        descriptor_write, descriptor_read = descriptors.write_port(), descriptors.read_port(domain="comb")
        # Without reset, so that a register's own reset pin is free for what is not wanted.
        beat, beat_out = (Signal(beat_layout(config), reset_less=True, name=name) for name in ("beat", "beat_out"))
        descriptor, header_out = (Signal(stored_header(config), reset_less=True, name=name)
                                  for name in ("descriptor", "header_out"))
        # A first beat is written before it is known whether it counts: if not, nothing refers to the place. Without a
        # vacant page there is no such place.
        put = Signal()
        m.d.comb += [
            put.eq(w.put & (~w.first | w.placed.shares | chain.vacant)),
            beat_write.en.eq(put),
            beat_write.addr.eq(chain.beat_place),
            beat_write.data.eq(w.beat),
            descriptor_write.en.eq(put & w.end),
            descriptor_write.addr.eq(chain.descriptor_place),
            beat_read.addr.eq(r.address),
            descriptor_read.addr.eq(chain.r_descriptor),
        ]
        extent = Signal.like(descriptor_write.data.extent)
        m.d.comb += [
            extent.eq(w.header.length - 1),
            descriptor_write.data.extent.eq(extent),
            descriptor_write.data.several.eq(extent[config.beat_bytes.bit_length() - 1:].any()),
        ]
        for name in STORED:
            m.d.comb += descriptor_write.data[name].eq(getattr(w.header, name))
        with m.If(r.read):
            m.d.sync += beat.eq(beat_read.data)
        with m.If(r.look):
            m.d.sync += descriptor.eq(descriptor_read.data)
        with m.If(r.move):
            m.d.sync += [beat_out.eq(Mux(r.beat_wanted, beat, 0)), header_out.eq(Mux(r.header_wanted, descriptor, 0))]
        m.d.comb += [r.beat.eq(beat_out), r.header.eq(header_out)]
