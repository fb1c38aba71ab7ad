"""What the DMA tests share: regions, random commands with their outcome, and the rules that requests must keep."""

from amaranth import Module
from amaranth.lib import wiring

from gateware.pcie.dma import Command, Outcome, Report
from gateware.pcie.protection import REGIONS, RegionTable
from gateware.pcie.tlp import RequestKind
from tests.gateware.pcie.test_protection import grant_region
from tests.gateware.pcie.tlps import fields

TENANTS = 2
GENERATION = 5
#: Two regions a tenant: readable and writable, and without the right of the engine under test.
BASE, SIZE, OTHER = 0x10_0000, 0x10_0000, 0x40_0000
#: The one that grants.
PLACE = 3


def bus_of(tenant, address):
    """Bus address of a guest address in the first region."""
    return address - BASE + (0x7_0000_0000 if tenant else 0x4000)


class Guarded(wiring.Component):
    """An engine with its table. `engine`: made with the width."""

    def __init__(self, engine):
        self.engine, self.table = engine, RegionTable(TENANTS, 1)
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine, m.submodules.table = self.engine, self.table
        wiring.connect(m, self.engine.table, self.table.lookups[0])
        return m


async def grant_all(ctx, dut, write):
    for tenant in range(TENANTS):
        await grant_region(ctx, dut, tenant, PLACE, base=BASE, size=SIZE, bus=bus_of(tenant, BASE), read=1, write=1,
                           generation=GENERATION)
        await grant_region(ctx, dut, tenant, PLACE + 1, base=OTHER, size=SIZE, bus=0x9000_0000, read=int(write),
                           write=int(not write), generation=GENERATION)


def draw(rng, number, longest=1500):
    """A random command as fields, and how it must end."""
    address = BASE + rng.choice([rng.randrange(SIZE - longest), 0x1000 * rng.randrange(1, 100) - rng.randrange(80),
                                 128 * rng.randrange(4000)])
    length = rng.choice([1, 2, 3, 4, 5, 64, rng.randrange(1, 40), rng.randrange(1, longest), longest])
    command = {"tenant": rng.randrange(TENANTS), "generation": GENERATION, "address": address, "length": length,
               "tag": number % 256}
    fault = rng.random()
    if fault < 0.05:
        return command | {"length": 0}, Outcome.EMPTY
    if fault < 0.1:
        return command | {"address": BASE + SIZE - length + 1}, Outcome.NO_REGION
    if fault < 0.15:
        return command | {"generation": GENERATION + 1}, Outcome.STALE
    if fault < 0.2:
        return command | {"address": OTHER}, Outcome.NO_RIGHT
    return command, Outcome.DONE


def command_bits(command):
    return Command.const(command).as_bits()


def reports_of(words):
    """(tag, outcome) of each report."""
    return [(found["tag"], Outcome(found["outcome"])) for found in (fields(Report, word) for word in words)]


def span(tlp):
    """First byte address and size of the bytes that a request enables; they must be one run (2.2.5)."""
    first = [byte for byte in range(4) if tlp.first_be >> byte & 1]
    if tlp.length == 1:
        assert tlp.last_be == 0
        assert first == list(range(first[0], first[-1] + 1))
        return 4 * tlp.address + first[0], len(first)
    last = [byte for byte in range(4) if tlp.last_be >> byte & 1]
    assert first == list(range(first[0], 4))
    assert last == list(range(last[-1] + 1))
    return 4 * tlp.address + first[0], 4 * tlp.length - first[0] - 3 + last[-1]


def check_request(tlp, kind, limit):
    """Rules of every request: no longer than `limit`, within an aligned block of it, and so within 4 KiB (2.2.7)."""
    assert RequestKind(tlp.kind) == kind
    start, size = span(tlp)
    assert size >= 1
    assert start // limit == (start + size - 1) // limit
    return start, size


__all__ = ["BASE", "GENERATION", "PLACE", "REGIONS", "Guarded", "bus_of", "check_request", "command_bits", "draw",
           "grant_all", "reports_of", "span"]
