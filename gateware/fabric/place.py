"""Where a tenant's queue ends in a crosspoint, as admission counts it ahead of the beats.

`place_layout` is the state, `place_packet` the rule by which the next packet is laid down: it shares the open page if
that has a beat and a descriptor left, else it begins a new page. Without latency.
"""

from amaranth import *
from amaranth.lib import data

from ..config import PAGE_BEATS

__all__ = ["PAGE_DESCRIPTORS", "place_layout", "place_packet", "placement_layout"]

PAGE_DESCRIPTORS = 8


def place_layout():
    """open: the queue holds a page that is its end; `beats` and `descriptors` of it are used, 0 stands for all."""
    return data.StructLayout({
        "open": 1,
        "beats": range(PAGE_BEATS),
        "descriptors": range(PAGE_DESCRIPTORS),
    })


def placement_layout():
    """Where one packet goes.

    open: its queue had a page; shares: it begins there, at beat `start`. need: new pages. slot: of its descriptor, in
    the page in which it ends. after: where the queue ends then.
    """
    return data.StructLayout({
        "open": 1,
        "shares": 1,
        "start": range(PAGE_BEATS),
        "need": range(32),
        "slot": range(PAGE_DESCRIPTORS),
        "after": place_layout(),
    })


def place_packet(m, place, behind):
    """The placement of a packet of `behind` beats behind its first one, 0 to 255. Call it once in a module.

    Both ways are laid out before it is known which one it is: `place` comes late. They differ by a page at most.
    """
    result = Signal(placement_layout(), name="placement")
    end = Signal(range(2 * PAGE_BEATS), name="placement_end")   # last beat in a shared page and on, less whole pages
    crosses, pages = Signal(name="placement_crosses"), behind[4:]
    m.d.comb += [
        end.eq(place.beats + behind[:4]),
        crosses.eq(end[4] | pages.any()),
        result.open.eq(place.open),
        result.shares.eq(place.open & (place.beats != 0) & (place.descriptors != 0)),
        result.start.eq(Mux(result.shares, place.beats, 0)),
        result.need.eq(Mux(result.shares & ~end[4], pages, pages + 1)),
        result.slot.eq(Mux(result.shares & ~crosses, place.descriptors, 0)),
        result.after.open.eq(1),
        # Modulo 16: a full page counts as 0; so do descriptors.
        result.after.beats.eq(Mux(result.shares, (place.beats + behind[:4] + 1)[:4], (behind + 1)[:4])),
        result.after.descriptors.eq(Mux(result.shares & ~crosses, (place.descriptors + 1)[:3], 1)),
    ]
    return result
