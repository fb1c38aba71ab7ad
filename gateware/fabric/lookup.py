"""What admission looks up of a header, in two cycles, and the parts of it that depend on nothing else; see `decision`.

`read_layout` is what the first cycle finds, `known_layout` the second, which the judgement uses; `recent_layout` is
what was booked in the cycle before. The functions are without latency.
"""

from functools import reduce
from itertools import pairwise
from operator import or_

from amaranth import *
from amaranth.lib import data

from ..config import MAX_PACKET_BEATS
from .place import place_layout, placement_layout

__all__ = ["known_layout", "left_of", "number_of", "read_layout", "recent_layout", "resolve", "size_layout", "size_of"]


def size_layout():
    """Size of a packet: beats behind the first one, if its length is legal."""
    return data.StructLayout({"behind": range(MAX_PACKET_BEATS), "legal": 1})


def size_of(config, length):
    """Size of a packet of so many bytes; of any 12-bit length."""
    last = (length - 1)[:len(length)]   # byte; of length 0 the largest
    behind = last >> (config.beat_bytes.bit_length() - 1)
    return Cat(behind[:8], (length != 0) & ~behind[8:].any())


def read_layout(config):
    """What the first cycle of a lookup finds, of the header that is judged or of the one behind it, or of none.

    total: the accumulator, and with as many shares more; judged, between: packets that count before this one. follows,
    succeeds: it is of the tenant of the header before it; of the one that was judged when it was read.
    """
    return data.StructLayout({
        "of_held": 1, "of_next": 1, "epoch": 2, "admits": 1, "ports": config.ports, "pages": range(config.pages + 1),
        "process": 1, "share": 9, "total": data.ArrayLayout(9, 4), "judged": 1, "between": 1, "follows": 1,
        "succeeds": 1, "here": config.ports,
    })


def known_layout(config):
    """What a lookup finds. used: pages held, too many unless `exact`; left: of the quota. welcome: granted, and may be
    admitted one day.

    epoch: two bits of it are enough, since it goes up by one and a lookup is two cycles old.
    """
    return data.StructLayout({
        "epoch": 2, "destination": 4, "here": config.ports, "process": 1, "total": 8,
        "behind": range(MAX_PACKET_BEATS), "single": 1, "used": range(2 * config.pages),
        "quota": range(config.pages + 1), "left": range(config.pages + 1), "exact": 1, "granted": 1, "welcome": 1,
        "placed": placement_layout(),
    })


def recent_layout(config):
    """Where a packet was booked, and what is known of its queue since."""
    return data.StructLayout({"valid": 1, "here": config.ports, "need": range(32), "after": place_layout()})


def resolve(m, config, read, found):
    """Where the packet that was read goes: into `found`, with its tenant's accumulator. Call it once in a module."""
    to_host = Signal()
    for before, (low, high) in enumerate(pairwise(read.total)):
        with m.If(read.judged + read.between == before):
            m.d.comb += [found.total.eq(high[:8]), to_host.eq(low[8] ^ high[8])]   # a share is 256 at most
    m.d.comb += [found.process.eq(read.process), found.here.eq(read.here)]
    with m.If(read.process):
        m.d.comb += found.here.eq(Mux(to_host, 1 << config.host_port, 1 << config.engine_port))


def number_of(known):
    """Number of the resolved destination; that of a port that does not exist stays as it is."""
    resolved = reduce(or_, (Mux(here, number, 0) for number, here in enumerate(known.here)))
    return Mux(known.here.any(), resolved, known.destination)


def left_of(m, pages, used, *before):
    """(pages left of a quota, pages booked since `used` was read); call it once in a module.

    before: two pairs (booked, need). Each case is made before it is known which one it is, and `used` comes late.
    """
    (follows, one), (succeeds, two) = before
    booked, left = Signal(range(64), name="booked"), Signal(signed(len(used) + 2), name="left")
    rest = Signal.like(left, name="rest")
    for number, case in enumerate([C(0), one, two, one + two]):
        with m.If(Cat(follows, succeeds) == number):
            m.d.comb += [booked.eq(case), rest.eq(pages - case)]
    m.d.comb += left.eq(rest - used)
    return Mux(left < 0, 0, left), booked
