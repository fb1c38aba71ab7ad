"""Drives a `ResourceManager` in Amaranth's simulator, and mirrors its allocation bus as a consumer would."""

from collections.abc import Callable
from typing import Any

from amaranth import Cat

from gateware.config import DeviceConfig
from gateware.manager.allocation import reset_row
from gateware.manager.manager import ResourceManager
from tests.gateware.manager.model import COLUMNS, COMMANDS, BusError, ResourceManagerModel, Row
from tests.gateware.manager.rule_model import Rule
from tests.gateware.simulation import simulate

address = ResourceManagerModel.address


def watch_word(rule: Rule) -> int:
    """`rule.watch` of the register map."""
    return rule.figure | rule.tenant << 8 | rule.comparison << 16 | rule.enable << 31


class Mirror:
    """A consumer of the allocation bus: three banks, written row by row."""

    def __init__(self, config: DeviceConfig):
        self.banks = [[dict(reset_row(tenant, config)) for tenant in range(config.tenants)] for _ in range(3)]
        self.bank = 0
        self.epoch = 0
        self.sum_pages = config.pages
        self.changes: list[int] = []   # cycles in which another bank came into force
        self.firings: list[int] = []   # cycles in which rules fired
        self.broadcasts: list[tuple[int, Row]] = []   # every row that was written, and in which cycle

    @property
    def active(self) -> list[Row]:
        return self.banks[self.bank]


class Harness:
    """Bus accesses, commands and traffic; `cycle` counts as the device's counter does, from any value."""

    def __init__(self, config: DeviceConfig, cycle: int = 0):
        self.config = config
        self.dut = ResourceManager(config)
        self.mirror = Mirror(config)
        self.cycle = cycle
        bus = self.dut.allocation
        self._roles = Cat(bus.active_bank, bus.epoch, self.dut.changed, bus.write, self.dut.fired, bus.sum_pages)

    def run(self, test: Callable[["Harness", Any], Any]) -> None:
        """Run the coroutine `test(harness, ctx)` to its end."""
        async def bench(ctx: Any) -> None:
            ctx.set(self.dut.cycle, self.cycle)
            await test(self, ctx)

        simulate(self.dut, bench)

    async def tick(self, ctx: Any, cycles: int = 1) -> None:
        """Pass cycles, and take what the allocation bus says in each."""
        for _ in range(cycles):
            self._observe(ctx)
            await ctx.tick()
            self.cycle += 1
            ctx.set(self.dut.cycle, self.cycle)
        # What the last cycle changed is seen at once; its row is taken when the cycle passes.
        self._observe(ctx, stored=False)

    def _observe(self, ctx: Any, *, stored: bool = True) -> None:
        """What holds in every cycle: the roles change together, and the bank in force is never written."""
        bus, mirror = self.dut.allocation, self.mirror
        word = ctx.get(self._roles)   # one look, because looking is what costs
        bank, epoch, sum_pages = word & 3, word >> 2 & 255, word >> 13
        changed, write = word >> 10 & 1, word >> 11 & 1
        if changed and (not mirror.changes or mirror.changes[-1] != self.cycle):
            assert bank != mirror.bank
            assert epoch == (mirror.epoch + 1) % 256
            mirror.changes.append(self.cycle)
            mirror.bank, mirror.epoch, mirror.sum_pages = bank, epoch, sum_pages
        assert (bank, epoch, sum_pages) == (mirror.bank, mirror.epoch, mirror.sum_pages)
        if word >> 12 & 1 and (not mirror.firings or mirror.firings[-1] != self.cycle):
            mirror.firings.append(self.cycle)
        if stored and write:
            assert ctx.get(bus.bank) != bank
            row = ctx.get(bus.row)
            taken = {name: row[name] for name in COLUMNS}
            mirror.banks[ctx.get(bus.bank)][ctx.get(bus.tenant)] = taken
            mirror.broadcasts.append((self.cycle, taken))

    async def access(self, ctx: Any, where: int, value: int | None = None, mask: int = 0xF) -> int:
        """One bus access at a byte address; `BusError` when the device says so."""
        bus = self.dut.bus
        ctx.set(bus.valid, 1)
        ctx.set(bus.write, value is not None)
        ctx.set(bus.address, where // 4)
        ctx.set(bus.w_data, value or 0)
        ctx.set(bus.w_mask, mask)
        for _ in range(16):
            if ctx.get(bus.ready):
                break
            await self.tick(ctx)
        assert ctx.get(bus.ready), f"no answer at {where:#x} within 16 cycles"
        error, word = ctx.get(bus.error), ctx.get(bus.r_data)
        await self.tick(ctx)
        ctx.set(bus.valid, 0)
        if error:
            raise BusError(f"{where:#x}")
        return int(word)

    async def read(self, ctx: Any, name: str, index: int = 0) -> int:
        return await self.access(ctx, address(name, index))

    async def write(self, ctx: Any, name: str, value: int, index: int = 0) -> None:
        await self.access(ctx, address(name, index), value)

    async def finish(self, ctx: Any) -> tuple[int, int, int]:
        """Wait until no command is under way; state, result, row."""
        for _ in range(4 * self.config.tenants + 64):
            status = await self.read(ctx, "rm.status")
            if not status >> 3 & 1:
                return status & 7, status >> 8 & 15, status >> 16 & 255
        raise AssertionError("the command did not end")

    async def command(self, ctx: Any, name: str) -> tuple[int, int]:
        """Carry out a command; result and row."""
        await self.write(ctx, "rm.command", COMMANDS[name])
        _, result, row = await self.finish(ctx)
        return result, row

    async def stage(self, ctx: Any, table: list[Row]) -> None:
        """Write every column of every row."""
        for tenant, row in enumerate(table):
            for name in COLUMNS:
                await self.write(ctx, f"staging.{name}", row[name], tenant)

    async def active_table(self, ctx: Any) -> list[Row]:
        """The table in force, read over the bus."""
        return [{name: await self.read(ctx, f"active.{name}", tenant) for name in COLUMNS}
                for tenant in range(self.config.tenants)]

    async def prepare_rule(self, ctx: Any, number: int, rule: Rule) -> None:
        """Write a rule that is not enabled: its row first, then its setting, `watch` last."""
        for name in COLUMNS:
            await self.write(ctx, f"prepared.{name}", rule.row[name], number)
        await self.write(ctx, "rule.threshold", rule.threshold, number)
        await self.write(ctx, "rule.hysteresis", rule.hysteresis, number)
        await self.write(ctx, "rule.timing", rule.hold | rule.interval << 16, number)
        await self.write(ctx, "rule.target", rule.target, number)
        await self.write(ctx, "rule.watch", watch_word(rule), number)

    async def figure(self, ctx: Any, tenant: int, figure: int, value: int) -> int:
        """One word of the analyzer; the cycle of its strobe."""
        port = self.dut.figures
        ctx.set(port.valid, 1)
        ctx.set(port.tenant, tenant)
        ctx.set(port.figure, figure)
        ctx.set(port.value, value)
        strobe = self.cycle
        await self.tick(ctx)
        ctx.set(port.valid, 0)
        return strobe

    async def traffic(self, ctx: Any, *, admit: list[int] = (), leave: list[int] = (), cut: bool = False) -> None:
        """One cycle in which packets of the given epochs enter and leave, one a port."""
        for events, strobe, epochs in ((self.dut.ingress, "admit", admit), (self.dut.egress, "leave", leave)):
            for port, epoch in zip(events, epochs, strict=False):
                ctx.set(getattr(port, strobe), 1)
                ctx.set(port.header.epoch, epoch)
        for port in self.dut.egress:
            ctx.set(port.cut, cut)
        await self.tick(ctx)
        for port in (*self.dut.ingress, *self.dut.egress):
            ctx.set(port.admit if hasattr(port, "admit") else port.leave, 0)
