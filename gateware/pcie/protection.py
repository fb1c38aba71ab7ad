"""The memory table and the gate: no request leaves for an address that is not granted to its tenant.

`RegionTable` holds eight regions a tenant. A region maps `size` bytes from guest address `base` to bus address `bus`,
for reading, for writing or both, under a generation number. Row `tenant * 8 + region`, eight words of 32 bits:

    0, 1  base    2, 3  size in bytes    4, 5  bus    6  generation 15..8, write 1, read 0    7  no meaning

`Gate` stands behind one DMA engine. It looks each command up, tells the engine the bus address, and holds the granted
*window*: bus addresses of this command, and its direction. Every request of the engine passes the gate, which compares
it with the window; so a fault of the engine cannot reach other memory. Any write to the rows of the command's tenant
closes the window in the same cycle; a lookup under way starts again. What was offered to the link before that cycle
still leaves: software waits until a tenant's commands have ended before it gives its memory to another.

Latency: an access is granted in 5 cycles and one for each of the tenant's regions before the first that grants it, or
refused in 12 (`regions` + 4); a request passes with one cycle of delay, a beat a cycle.
"""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..csr.bus import CsrSignature
from .tlp import RequestKind, byte_count, first_byte, request_layout

__all__ = ["LENGTH_BITS", "REGIONS", "Access", "Gate", "Grant", "GrantStatus", "Region", "RegionTable",
           "TableSignature"]

#: Regions of a tenant.
REGIONS = 8
#: Bits of the length of a command, in bytes.
LENGTH_BITS = 24


class Region(data.Struct):
    """A row of the table. A region that neither reads nor writes grants nothing."""

    base: 64
    size: 64
    bus: 64
    read: 1
    write: 1
    unused: 6
    generation: 8
    free: 48


class Access(data.Struct):
    """What a DMA command asks for: `length` bytes (at least 1) at guest address `address`, for one tenant."""

    tenant: 6
    generation: 8
    address: 64
    length: LENGTH_BITS
    write: 1


class GrantStatus(enum.Enum, shape=unsigned(3)):
    """Granted; no region holds all of the access; one does, but not with this right; or of another generation; or
    bus mastering is off."""

    GRANTED = 0
    NO_REGION = 1
    NO_RIGHT = 2
    STALE = 3
    STOPPED = 4


class Grant(data.Struct):
    """The answer to an `Access`: its bus address, which means something only if it is granted."""

    status: GrantStatus
    address: 64


class TableSignature(wiring.Signature):
    """Read port of the table, seen from who looks up.

    `region` is the one of `row` in the cycle before. `changed` is high in the cycle in which something of
    `changed_tenant` is being changed: the next cycle's `region` is read new.
    """

    def __init__(self):
        super().__init__({"row": Out(9), "region": In(Region), "changed": In(1), "changed_tenant": In(6)})

    def __eq__(self, other):
        return isinstance(other, TableSignature)


class RegionTable(wiring.Component):
    """The table of `tenants` tenants, written and read over the register bus, with `lookups` ports for gates.

    Ports: `bus`: word addresses from 0; beyond the last row they are answered with `error`. An access takes two
    cycles. A row grants nothing until its word 6 is written, which is therefore written last.
    """

    def __init__(self, tenants: int, lookups: int = 2):
        if not 1 <= tenants <= 64:
            raise ValueError(f"tenants must be in 1..64, not {tenants!r}")
        self._rows = tenants * REGIONS
        super().__init__({"bus": In(CsrSignature(12)), "lookups": In(TableSignature()).array(lookups)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.rows = rows = Memory(shape=unsigned(256), depth=self._rows, init=[])
        store, readback = rows.write_port(granularity=8), rows.read_port()
        row, word = self.bus.address[3:], self.bus.address[:3]
        inside, write, second = Signal(), Signal(), Signal()
        m.d.comb += [
            inside.eq(row < self._rows),
            write.eq(self.bus.valid & ~second & self.bus.write & inside),
            store.addr.eq(row),
            store.data.eq(self.bus.w_data.replicate(8)),
            store.en.eq(Mux(write, self.bus.w_mask << (word << 2), 0)),
            readback.addr.eq(row),
            self.bus.ready.eq(self.bus.valid & second),
            self.bus.error.eq(~inside),
            self.bus.r_data.eq(readback.data.word_select(word, 32)),
        ]
        m.d.sync += second.eq(self.bus.valid & ~second)
        for lookup in self.lookups:
            port = rows.read_port(transparent_for=[store])
            m.d.comb += [
                port.addr.eq(lookup.row),
                lookup.region.as_value().eq(port.data),
                lookup.changed.eq(write),
                lookup.changed_tenant.eq(row >> 3),
            ]
        return m


class Gate(wiring.Component):
    """Looks accesses up, and lets the requests of the one that is being carried out pass.

    Ports: `access`: what the engine wants next, taken while the one before is carried out; `grant`: the answer. From a
    grant to `finish` the engine sends its `requests`, which leave as `passed` if the window holds them, and are
    swallowed, with the strobe `blocked`, if not. `revoked`: the window was closed under the command. `empty`: all
    that passed has left. `enable` low: nothing is granted and nothing more passes (a TLP that has begun is finished).
    """

    def __init__(self, width: int, regions: int = REGIONS):
        self._regions = regions
        super().__init__({
            "table": Out(TableSignature()),
            "access": In(stream.Signature(Access)),
            "grant": Out(stream.Signature(Grant)),
            "finish": In(1),
            "revoked": Out(1),
            "requests": In(stream.Signature(request_layout(width))),
            "passed": Out(stream.Signature(request_layout(width))),
            "blocked": Out(1),
            "empty": Out(1),
            "enable": In(1, init=1),
        })

    def elaborate(self, platform):
        m = Module()
        following, window = _Window("following"), _Window("window")
        changed = Signal()
        m.d.comb += [
            changed.eq(self._changes(following)),
            self.revoked.eq(window.void),
            self.empty.eq(~self.passed.valid),
        ]
        with m.FSM():
            with m.State("idle"):
                m.d.comb += self.access.ready.eq(1)
                m.d.sync += following.access.eq(self.access.payload)
                with m.If(self.access.valid):
                    m.next = "begin"
            with m.State("begin"):
                m.d.sync += [following.scanned.eq(0), following.void.eq(0),
                             self.grant.payload.status.eq(GrantStatus.NO_REGION)]
                m.next = "scan"
                with m.If(~self.enable):
                    m.d.sync += self.grant.payload.status.eq(GrantStatus.STOPPED)
                    m.next = "answer"
            with m.State("scan"):
                self._elaborate_scan(m, following)
                with m.If(changed):
                    m.next = "begin"  # what was found is void
            with m.State("answer"):
                m.d.comb += self.grant.valid.eq(1)
                with m.If(changed):
                    m.d.sync += following.void.eq(1)
                with m.If(self.grant.ready):
                    m.next = "idle"
        with m.If(self._changes(window)):
            m.d.sync += window.void.eq(window.opened)
        with m.If(self.finish):
            m.d.sync += [window.opened.eq(0), window.void.eq(0)]
        with m.If(self.grant.valid & self.grant.ready & (self.grant.payload.status == GrantStatus.GRANTED)):
            m.d.sync += [window.access.eq(following.access), window.low.eq(following.low),
                         window.high.eq(following.high), window.opened.eq(1), window.void.eq(following.void | changed)]
        self._elaborate_passage(m, window)
        return m

    def _changes(self, window):
        """The table changes for who asked for this window, or nobody may do DMA any more."""
        return (self.table.changed & (self.table.changed_tenant == window.access.tenant)) | ~self.enable

    def _elaborate_scan(self, m, following):
        """A region is read, compared and noted in three stages, a region a cycle, up to the first that grants."""
        scanned, status = following.scanned, self.grant.payload.status
        m.d.comb += self.table.row.eq((following.access.tenant * REGIONS) + scanned)
        match = self._elaborate_match(m, following.access, (scanned != 0) & (scanned <= self._regions))
        m.d.sync += scanned.eq(scanned + 1)
        with m.If(match.found & (scanned > 1)):
            with m.If(status != GrantStatus.GRANTED):
                m.d.sync += status.eq(match.status)
            with m.If(match.status == GrantStatus.GRANTED):
                m.d.sync += [following.low.eq(match.start), following.high.eq(match.end),
                             self.grant.payload.address.eq(match.start)]
                m.next = "answer"
        with m.If(scanned == self._regions + 1):
            m.next = "answer"

    def _elaborate_match(self, m, wanted, offered):
        """Compare the region, `offered` in this cycle, with the access; the result is there in the next."""
        region, kept, match = self.table.region, Signal(Region), _Match()
        offset, above, compared, start = Signal(64), Signal(), Signal(), Signal(65)
        m.d.sync += [kept.eq(region), above.eq(wanted.address >= region.base), offset.eq(wanted.address - region.base),
                     compared.eq(offered)]
        m.d.comb += [
            start.eq(kept.bus + offset),
            match.start.eq(start),
            match.end.eq(match.start + wanted.length),
            # What ends beyond the address space would go on at its beginning.
            match.found.eq(compared & above & (offset + wanted.length <= kept.size) & (kept.read | kept.write)
                           & ~start[64] & (match.end <= 1 << 64)),
        ]
        with m.If(kept.generation != wanted.generation):
            m.d.comb += match.status.eq(GrantStatus.STALE)
        with m.Elif(~Mux(wanted.write, kept.write, kept.read)):
            m.d.comb += match.status.eq(GrantStatus.NO_RIGHT)
        with m.Else():
            m.d.comb += match.status.eq(GrantStatus.GRANTED)
        return match

    def _elaborate_passage(self, m, window):
        """One register stage. The first beat of a request decides for all of it."""
        header, passing = self.requests.payload.header, Signal()
        start, end, inside, goes = Signal(64), Signal(65), Signal(), Signal()
        m.d.comb += [
            start.eq((header.address << 2) + first_byte(header)),
            end.eq(start + byte_count(header)),
            inside.eq(window.opened & ~window.void & ~self._changes(window)
                      & (start >= window.low) & (end <= window.high)
                      & Mux(window.access.write, header.kind == RequestKind.WRITE, header.kind == RequestKind.READ)),
            goes.eq(Mux(self.requests.payload.first, inside, passing)),
            self.requests.ready.eq(~self.passed.valid | self.passed.ready),
            self.blocked.eq(self.requests.valid & self.requests.ready & self.requests.payload.first & ~inside),
        ]
        with m.If(self.requests.ready):
            m.d.sync += self.passed.valid.eq(self.requests.valid & goes)
            with m.If(self.requests.valid):
                m.d.sync += [self.passed.payload.eq(self.requests.payload), passing.eq(goes)]


class _Match:
    """The access lies in the region that was compared: at bus addresses from `start` on, below `end`."""

    def __init__(self):
        self.found = Signal()
        self.status = Signal(GrantStatus)
        self.start, self.end = Signal(64), Signal(65)


class _Window:
    """What an access may reach: bus addresses from `low` on, below `high`. `void`: its grant was taken back."""

    def __init__(self, name):
        self.access = Signal(Access, name=f"{name}_access")
        self.low, self.high = Signal(64, name=f"{name}_low"), Signal(65, name=f"{name}_high")
        self.opened, self.void = Signal(name=f"{name}_opened"), Signal(name=f"{name}_void")
        self.scanned = Signal(range(REGIONS + 3), name=f"{name}_scanned")
