"""`RequestMux`: requests of several sources onto one TLP stream, a whole TLP at a time, within flow control credits.

Contract: a source that offers is chosen in turn if the link has credits for its request (2.6.1): for writes posted
headers and data, for reads non-posted headers. A source without credits is passed over: reads do not wait behind
writes, nor writes behind reads (2.4.1). The order of one source is kept.

Credits are told as the link counts them: `limit` is the sum of all that were granted, modulo the width of the field;
the mux counts what it has used in the same way. A field whose limit is 0 at the first request, as the initialisation
told it (2.6.1), is not limited for ever; which are limited is given by `limited`.

Latency: one cycle for the beats, in a register stage; one more in which the choice is made, if another source was
chosen. The next one is chosen while the last beat of a TLP passes, so that TLPs follow each other without a pause.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.skid import SkidBuffer
from .tlp import RequestKind, request_layout

__all__ = ["Credits", "RequestMux"]


class Credits(data.Struct):
    """Headers and data (in units of 16 bytes) of posted requests, headers of non-posted ones."""

    posted_headers: 8
    posted_data: 12
    nonposted_headers: 8


class RequestMux(wiring.Component):
    """Merges `count` sources. `limited`: bits of posted headers, posted data, non-posted headers."""

    def __init__(self, width: int, count: int):
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count!r}")
        self._count, self._width = count, width
        super().__init__({
            "sources": In(stream.Signature(request_layout(width))).array(count),
            "requests": Out(stream.Signature(request_layout(width))),
            "limit": In(Credits),
            "limited": In(3),
            "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.skid = skid = SkidBuffer(request_layout(self._width))
        wiring.connect(m, skid.o, wiring.flipped(self.requests))
        used, chosen, fits = Signal(Credits), Signal(range(self._count)), Signal(self._count)
        for index, source in enumerate(self.sources):
            m.d.comb += fits[index].eq(source.valid & self._has_credits(m, source.payload.header, used))
        between = Signal(init=1)  # no TLP is in passage
        goes, first = Signal(), skid.i.payload.first
        with m.Switch(chosen):
            for index, source in enumerate(self.sources):
                with m.Case(index):
                    m.d.comb += goes.eq(~between | fits[index])
                    with m.If(goes):
                        wiring.connect(m, wiring.flipped(source), skid.i)
                    # Others that can go are chosen when a TLP of this one has passed, or while it cannot begin one.
                    with m.If((skid.i.valid & skid.i.ready & skid.i.payload.last) | ~goes):
                        for step in range(self._count - 1, 0, -1):
                            with m.If(fits[(index + step) % self._count]):
                                m.d.sync += chosen.eq((index + step) % self._count)
        with m.If(skid.i.valid & skid.i.ready):
            m.d.sync += between.eq(skid.i.payload.last)
            with m.If(first):
                self._use(m, used, skid.i.payload.header)
        m.d.comb += self.busy.eq(~between)
        return m

    def _has_credits(self, m, header, used):
        """The limit is not behind what would be used then, modulo the field (2.6.1.2)."""
        after_header, after_data, after_nonposted = Signal(8), Signal(12), Signal(8)
        m.d.comb += [
            after_header.eq(self.limit.posted_headers - used.posted_headers - 1),
            after_data.eq(self.limit.posted_data - used.posted_data - ((header.length + 3) >> 2)),
            after_nonposted.eq(self.limit.nonposted_headers - used.nonposted_headers - 1),
        ]
        posted = (~after_header[-1] | ~self.limited[0]) & (~after_data[-1] | ~self.limited[1])
        return Mux(header.kind == RequestKind.WRITE, posted, ~after_nonposted[-1] | ~self.limited[2])

    def _use(self, m, used, header):
        with m.If(header.kind == RequestKind.WRITE):
            m.d.sync += [used.posted_headers.eq(used.posted_headers + 1),
                         used.posted_data.eq(used.posted_data + ((header.length + 3) >> 2))]
        with m.Else():
            m.d.sync += used.nonposted_headers.eq(used.nonposted_headers + 1)
