"""The region table and the gate against a model: what is granted, what passes, what a change of the table does."""

import random

import pytest
from amaranth import Module
from amaranth.lib import wiring

from gateware.pcie.protection import REGIONS, Access, Gate, GrantStatus, RegionTable
from gateware.pcie.tlp import RequestKind
from tests.gateware.csr.initiator import access
from tests.gateware.pcie.tlps import beats, collect, enables, request, request_layout, sink, source
from tests.gateware.simulation import simulate

TENANTS = 3
GRANTED, NO_REGION, NO_RIGHT, STALE, STOPPED = (status.value for status in GrantStatus)


class Guarded(wiring.Component):
    """A table and a gate."""

    def __init__(self):
        self.table, self.gate = RegionTable(TENANTS, 1), Gate(64)
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.table, m.submodules.gate = self.table, self.gate
        wiring.connect(m, self.gate.table, self.table.lookups[0])
        return m


def words(base=0, size=0, bus=0, read=0, write=0, generation=0):
    return [base & 0xFFFFFFFF, base >> 32, size & 0xFFFFFFFF, size >> 32, bus & 0xFFFFFFFF, bus >> 32,
            generation << 8 | write << 1 | read]


async def grant_region(ctx, dut, tenant, index, **region):
    for word, value in enumerate(words(**region)):
        error, _, _ = await access(ctx, dut.table.bus, ((tenant * REGIONS + index) * 8 + word) * 4, value)
        assert not error


async def ask(ctx, gate, **wanted):
    """Status and bus address; refused or not, the gate is free afterwards only if `finish` follows a grant."""
    ctx.set(gate.access.payload, Access.const({"tenant": 0, "generation": 0, "write": 0, **wanted}))
    ctx.set(gate.access.valid, 1)
    await ctx.tick().until(gate.access.ready)
    ctx.set(gate.access.valid, 0)
    ctx.set(gate.grant.ready, 1)
    for cycle in range(40):
        _, _, valid, status, address = await ctx.tick().sample(gate.grant.valid, gate.grant.payload.status.as_value(),
                                                               gate.grant.payload.address)
        if valid:
            ctx.set(gate.grant.ready, 0)
            return status, address, cycle + 1
    raise AssertionError("no answer")


async def finish(ctx, gate):
    ctx.set(gate.finish, 1)
    await ctx.tick()
    ctx.set(gate.finish, 0)


def model(regions, address, length, write, generation):
    """Statuses that may be answered; by region, the bus addresses of those that are granted."""
    seen, granted = set(), {}
    for index, region in regions.items():
        base, size, bus = region["base"], region["size"], region["bus"]
        inside = base <= address and address + length <= base + size and (region["read"] or region["write"])
        if inside and bus + address - base + length <= 1 << 64:
            if region["generation"] != generation:
                seen.add(STALE)
            elif not region["write" if write else "read"]:
                seen.add(NO_RIGHT)
            else:
                granted[index] = bus + address - base
    return ({GRANTED} if granted else seen or {NO_REGION}), granted


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_accesses_are_granted_as_in_the_model(seed):
    print("seed", seed)
    rng, dut = random.Random(seed), Guarded()

    async def test(ctx):
        table = {}
        edges = [0, 0x1000, 0x1FFF, 0x2000, (1 << 32) - 8, 1 << 32, (1 << 64) - 64, (1 << 64) - 1]
        for _ in range(25):
            tenant, index = rng.randrange(TENANTS), rng.randrange(REGIONS)
            region = {"base": rng.choice(edges), "size": rng.choice([0, 1, 0x1000, 0x2000, (1 << 64) - 1]),
                      "bus": rng.choice(edges), "read": rng.randrange(2), "write": rng.randrange(2),
                      "generation": rng.randrange(2)}
            await grant_region(ctx, dut, tenant, index, **region)
            table[tenant, index] = region
            for _ in range(6):
                tenant = rng.randrange(TENANTS)
                address = max(0, min((1 << 64) - 1, rng.choice(edges) + rng.choice([0, 0, 1, -1, 100])))
                length = rng.choice([1, 2, 64, 0xFFF, 0x1000, 0x1001])
                write, generation = rng.randrange(2), rng.randrange(2)
                status, bus, cycles = await ask(ctx, dut.gate, tenant=tenant, address=address, length=length,
                                                write=write, generation=generation)
                own = {index: region for (owner, index), region in table.items() if owner == tenant}
                statuses, addresses = model(own, address, length, write, generation)
                assert status in statuses
                assert cycles == (5 + min(addresses) if addresses else REGIONS + 4)
                if status == GRANTED:
                    assert bus == addresses[min(addresses)]
                    await finish(ctx, dut.gate)

    simulate(dut, test)


@pytest.mark.parametrize("write", [0, 1])
def test_only_requests_within_the_window_pass(write):
    dut, kind = Guarded(), RequestKind.WRITE if write else RequestKind.READ
    other = RequestKind.READ if write else RequestKind.WRITE
    passed, blocked = [], [0]

    def tlp(start, size, kind=kind):
        address, length, first, last = enables(start, size)
        return request(kind, 4 * address, length=length, first_be=first, last_be=last,
                       data=bytes(4 * length) if kind == RequestKind.WRITE else b"")

    inside = [tlp(0x8003, 1), tlp(0x8003, 64), tlp(0x8103, 29), tlp(0x8003, 285)]
    outside = [tlp(0x8002, 1), tlp(0x8002, 8), tlp(0x8110, 17), tlp(0x8120, 4), tlp(0x8003, 4, other),
               tlp(0x8003, 286), tlp(0xFFFF_FFFF_FFFF_FFFC, 4), tlp(0x1_0000_8003, 8), tlp(0, 4)]

    async def test(ctx):
        await grant_region(ctx, dut, 1, 7, base=0x1000, size=0x1000, bus=0x7000, read=1, write=1)
        assert (await ask(ctx, dut.gate, tenant=1, address=0x2003 - 0x1000 + 0x0, length=0x11D, write=write))[:2] == (
            GRANTED, 0x7003)
        await finish(ctx, dut.gate)
        await grant_region(ctx, dut, 1, 6, base=0x3000, size=0x1000, bus=0x8000, read=1, write=1)
        await ask(ctx, dut.gate, tenant=1, address=0x3003, length=0x11D, write=write)
        for pair in zip(inside * 3, outside * 3, strict=False):
            for each in pair:
                await source(dut.gate.requests, beats(each, request_layout(64), 64))(ctx)
        for each in outside:
            await source(dut.gate.requests, beats(each, request_layout(64), 64))(ctx)
        await finish(ctx, dut.gate)
        await source(dut.gate.requests, beats(inside[0], request_layout(64), 64))(ctx)  # the window is closed
        await ctx.tick().repeat(3)

    async def count(ctx):
        async for _, _, value in ctx.tick().sample(dut.gate.blocked):
            blocked[0] += value

    rng = random.Random(1)
    simulate(dut, test, background=[count, sink(dut.gate.passed, passed, lambda: rng.random() < 0.3)])
    expected = [each for pair in zip(inside * 3, outside * 3, strict=False) for each in pair if each in inside]
    found = collect(passed, request_layout(64), 64)
    assert [(each.address, each.length) for each in found] == [(each.address, each.length) for each in expected]
    assert blocked[0] == 12 + len(outside) + 1


def test_a_change_of_the_tenants_rows_closes_the_window_and_of_others_does_not():
    dut, passed = Guarded(), []
    inside = beats(request(RequestKind.WRITE, 0x8000, data=bytes(16)), request_layout(64), 64)

    async def test(ctx):
        await grant_region(ctx, dut, 1, 0, base=0, size=0x1000, bus=0x8000, read=1, write=1)
        await ask(ctx, dut.gate, tenant=1, address=0, length=64, write=1)
        await grant_region(ctx, dut, 2, 0, base=0, size=0x1000, bus=0x9000, read=1, write=1)
        assert not ctx.get(dut.gate.revoked)
        await source(dut.gate.requests, inside)(ctx)
        await ctx.tick().repeat(2)
        assert len(passed) == 2
        await grant_region(ctx, dut, 1, 3, base=0, size=0x10, bus=0x5000, read=1, write=1)  # any row of the tenant
        assert ctx.get(dut.gate.revoked)
        await source(dut.gate.requests, inside)(ctx)
        await ctx.tick().repeat(3)
        assert len(passed) == 2
        await finish(ctx, dut.gate)
        status, _, _ = await ask(ctx, dut.gate, tenant=1, address=0, length=64, write=1)
        assert (status, ctx.get(dut.gate.revoked)) == (GRANTED, 0)

    simulate(dut, test, background=[sink(dut.gate.passed, passed)])


@pytest.mark.slow
@pytest.mark.parametrize("delay", range(1, 16))
def test_a_row_that_is_taken_back_during_the_lookup_is_not_granted(delay):
    dut = Guarded()

    async def test(ctx):
        await grant_region(ctx, dut, 1, 0, base=0, size=0x1000, bus=0x8000, read=1, write=1)
        ctx.set(dut.gate.access.payload, Access.const({"tenant": 1, "address": 0, "length": 64, "write": 1}))
        ctx.set(dut.gate.access.valid, 1)
        await ctx.tick()
        ctx.set(dut.gate.access.valid, 0)
        await ctx.tick().repeat(delay)
        await access(ctx, dut.table.bus, (REGIONS * 8 + 6) * 4, 0)
        await ctx.tick().repeat(20)
        assert ctx.get(dut.gate.grant.valid)
        granted = ctx.get(dut.gate.grant.payload.status.as_value()) == GRANTED
        ctx.set(dut.gate.grant.ready, 1)
        await ctx.tick()
        assert not granted or ctx.get(dut.gate.revoked)

    simulate(dut, test)


def test_nothing_is_granted_or_passes_without_bus_mastering():
    dut, passed = Guarded(), []

    async def test(ctx):
        await grant_region(ctx, dut, 1, 0, base=0, size=0x1000, bus=0x8000, read=1, write=1)
        await ask(ctx, dut.gate, tenant=1, address=0, length=64, write=1)
        ctx.set(dut.gate.enable, 0)
        await ctx.tick()
        ctx.set(dut.gate.enable, 1)
        await source(dut.gate.requests, beats(request(RequestKind.WRITE, 0x8000, data=bytes(16)),
                                              request_layout(64), 64))(ctx)
        await finish(ctx, dut.gate)
        ctx.set(dut.gate.enable, 0)
        assert (await ask(ctx, dut.gate, tenant=1, address=0, length=64, write=1))[0] == STOPPED
        await ctx.tick()
        ctx.set(dut.gate.enable, 1)
        assert (await ask(ctx, dut.gate, tenant=1, address=0, length=64, write=1))[0] == GRANTED

    simulate(dut, test, background=[sink(dut.gate.passed, passed)])
    assert passed == []


def test_the_table_reads_back_by_bytes_and_refuses_rows_that_it_has_not():
    dut = RegionTable(TENANTS)

    async def test(ctx):
        rows = TENANTS * REGIONS
        for word in (0, 7, 8 * rows - 1):
            await access(ctx, dut.bus, 4 * word, 0x11223344)
            await access(ctx, dut.bus, 4 * word, 0xAABBCCDD, 0b0110)
            assert await access(ctx, dut.bus, 4 * word) == (0, 0x11BBCC44, 2)
        assert (await access(ctx, dut.bus, 4 * 8 * rows, 1))[0]
        assert (await access(ctx, dut.bus, 4 * 8 * rows))[0]

    simulate(dut, test)


@pytest.mark.parametrize("tenants", [0, 65])
def test_wrong_numbers_of_tenants_are_refused(tenants):
    with pytest.raises(ValueError, match=r"tenants must be in 1\.\.64"):
        RegionTable(tenants)


