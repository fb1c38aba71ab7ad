"""Allowances: what the tenants' rows grant the shapers, made once for all outputs, a tenant a cycle.

Contract: `refill` names a tenant in every cycle, each once in T cycles (T: tenants), with what its bucket gets for
them: whole beats, of which the sum over n turns is r*T*n, rounded down, for a rate r of beats a cycle; a rest below
one beat stays for later turns. `most` is what the bucket may hold then above one largest packet (256 beats): its burst
less 256, less r*T rounded down, less 2, so that neither the beats of a turn nor the rest pass the burst; at least 0. A
row counts five cycles after it came into force, at its tenant's next turn. A rate of 65536 or more does not limit
(`full`). Rate 0 counts as 64 (1/1024 beat a cycle), so that what was admitted under an earlier table always drains.
There are no errors.
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, DeviceConfig
from ..manager.allocation import FULL_RATE, AllocationSignature
from .rows import Rows

__all__ = ["FRACTION", "LEAST_RATE", "UNKNOWN", "Allowances", "refill_layout"]

LEAST_RATE = 64
FRACTION = 16  # bits of a rate below one beat a cycle
#: Packets of a tenant that an output starts at most before the charge for the first one shows. One above a power of
#: two, which the largest packet is too: so a level is compared by its upper bits alone.
UNKNOWN = 9


def refill_layout(config: DeviceConfig):
    """What one tenant's bucket gets.

    beats: for this turn; most: it may hold above one largest packet. excess: `beats` less `most`. deep: with `most` it
    holds `UNKNOWN` largest packets. full: it does not limit.
    """
    return data.StructLayout({"tenant": range(config.tenants), "beats": range(config.tenants + 1), "most": 15,
                              "excess": signed(16), "deep": 1, "full": 1})


class Allowances(wiring.Component):
    """Walk over the rows in force."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "refill": Out(refill_layout(config), init={"full": 1}),
        })

    def elaborate(self, platform):
        m = Module()
        tenants = self._config.tenants
        m.submodules.rows = rows = Rows(self._config, ["rate", "burst"])
        wiring.connect(m, wiring.flipped(self.allocation), rows.allocation)
        asked, read, valued, granted = (
            Signal(range(tenants), name=f"{step}_tenant") for step in ("asked", "read", "valued", "granted"))
        row = Signal(rows.layout, init={"rate": FULL_RATE})
        lump = Signal(17 + tenants.bit_length())   # of a turn, with its fraction
        burst = Signal(15)
        beats, room = Signal(range(tenants + 1), name="beats"), Signal(signed(17), name="room")
        read_full, valued_full, granted_full = (
            Signal(init=1, name=f"{step}_full") for step in ("read", "valued", "granted"))
        m.d.comb += [rows.tenants[0].eq(asked), read_full.eq(row.rate >= FULL_RATE)]
        m.d.sync += [
            asked.eq(Mux(asked == tenants - 1, 0, asked + 1)),
            read.eq(asked), row.eq(rows.rows[0]),
            valued.eq(read), valued_full.eq(read_full), burst.eq(row.burst),
            lump.eq(Mux(row.rate == 0, LEAST_RATE, row.rate) * tenants),
            granted.eq(valued), granted_full.eq(valued_full), beats.eq(self._carry(m, valued, lump)),
            room.eq(burst - (lump >> FRACTION) - (MAX_PACKET_BEATS + 2)),
        ]
        most = Signal(15)
        m.d.comb += most.eq(Mux(room < 0, 0, room))
        m.d.sync += [
            self.refill.tenant.eq(granted),
            self.refill.beats.eq(beats),
            self.refill.most.eq(most),
            self.refill.excess.eq(Mux(room < 0, beats, beats - room)),
            self.refill.deep.eq(most >= (UNKNOWN - 1) * MAX_PACKET_BEATS),
            self.refill.full.eq(granted_full),
        ]
        return m

    def _carry(self, m, tenant, lump):
        """Whole beats of a turn, with what earlier ones left; the rest is kept."""
        m.submodules.rests = rests = memory.Memory(shape=FRACTION, depth=self._config.tenants, init=[])
        rest, write = rests.read_port(domain="comb"), rests.write_port()
        total = Signal(len(lump) + 1)
        m.d.comb += [
            rest.addr.eq(tenant),
            total.eq(lump + rest.data),
            write.en.eq(1),
            write.addr.eq(tenant),
            write.data.eq(total),
        ]
        return total >> FRACTION
