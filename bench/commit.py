"""How fast a new allocation is in force, by software's commit and by a rule, and what it does to the traffic.

Cycles are counted on the gateware in Amaranth's simulator: resource manager and fabric, small packets waiting at
every input, every row of the table changed; the slowest of some starting cycles, spread over the fabric's walk over
its tenants, which a packet that needs shared pages may have to wait for. Drain and loss are measured on the Verilated
device under traffic at line rate (`sim/storm.py`). References: T + 48 cycles, the design's own limit; the time to
drain is a property of the traffic, and reported without a target.
"""

from typing import Any

import numpy as np
from _figures import Figure, arguments, machine, progress, report
from amaranth.hdl import Module
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.csr import regmap
from gateware.fabric.fabric import Fabric
from gateware.manager.manager import ResourceManager
from sim.board import Board
from sim.harness import device_model
from sim.storm import LOAD, Storm, run

BEGIN, CHECK, COMMIT = 1, 2, 3
FIGURE = 3
MARGIN = 48
QUOTA = 8   # pages: more than the packets in flight need
WALK = 5    # cycles beyond one a tenant that the fabric's walk over its tenants takes


class Bench:
    """Resource manager and fabric in the simulator, one packet of 8 bytes after another at the host port."""

    def __init__(self, tenants: int) -> None:
        self.config = DeviceConfig(tenants=tenants)
        self.manager, self.fabric = ResourceManager(self.config), Fabric(self.config)
        self.cycle = self.changed = self.admitted = self.granted = 0
        self._epoch = 0

    def _module(self) -> Module:
        m = Module()
        m.submodules.manager, m.submodules.fabric = manager, fabric = self.manager, self.fabric
        for name in manager.allocation.signature.members:
            m.d.comb += getattr(fabric.allocation, name).eq(getattr(manager.allocation, name))
        for side in ("ingress", "egress"):
            for source, sink in zip(getattr(fabric, side), getattr(manager, side), strict=True):
                for name in source.signature.members:
                    m.d.comb += getattr(sink, name).eq(getattr(source, name))
        return m

    def measure(self, scenario: Any) -> None:
        """Run the coroutine `scenario(bench, ctx)`."""
        async def bench(ctx: Any) -> None:
            await scenario(self, ctx)

        simulator = Simulator(self._module())
        simulator.add_clock(1e-8)
        simulator.add_testbench(bench)
        simulator.run()

    def start_traffic(self, ctx: Any) -> None:
        """Packets of tenant 0 to port 1, always waiting; every output takes what comes."""
        source = self.fabric.inputs[self.config.host_port]
        ctx.set(source.header.valid, 1)
        ctx.set(source.header.payload.destination, 1)
        ctx.set(source.header.payload.length, self.config.beat_bytes)
        ctx.set(source.data.valid, 1)
        ctx.set(source.data.payload.last, 1)
        for output in self.fabric.outputs:
            ctx.set(output.header.ready, 1)
            ctx.set(output.data.ready, 1)

    async def tick(self, ctx: Any, cycles: int = 1) -> None:
        """Pass cycles; note when the epoch changes, and the first packet admitted and sent under it."""
        for _ in range(cycles):
            epoch = ctx.get(self.manager.allocation.epoch)
            if epoch != self._epoch:
                self._epoch, self.changed, self.admitted, self.granted = epoch, self.cycle, 0, 0
            event, out = self.fabric.ingress[self.config.host_port], self.fabric.outputs[1].header
            if not self.admitted and ctx.get(event.admit) and ctx.get(event.header.epoch) == epoch:
                self.admitted = self.cycle
            if not self.granted and ctx.get(out.valid) and ctx.get(out.payload.epoch) == epoch:
                self.granted = self.cycle
            await ctx.tick()
            self.cycle += 1

    async def write(self, ctx: Any, block: str, register: str, value: int, index: int = 0) -> None:
        """One access of the register bus."""
        node, bus = regmap.node(block), self.manager.bus
        ctx.set(bus.address, (node.address + index * node.stride + node.register(register).offset) // 4)
        for port, word in ((bus.w_data, value), (bus.w_mask, 15), (bus.write, 1), (bus.valid, 1)):
            ctx.set(port, word)
        while not ctx.get(bus.ready):
            await self.tick(ctx)
        if ctx.get(bus.error):
            raise RuntimeError(f"the write to {block}[{index}].{register} was refused")
        await self.tick(ctx)
        ctx.set(bus.valid, 0)

    async def write_row(self, ctx: Any, block: str, index: int, quota: int) -> None:
        """A row that grants all ports, and the tenant of the traffic a quota of pages."""
        pages = 0 if index % self.config.tenants else quota
        for name, value in (("weight", 100 + index), ("rate", 65536), ("pages", pages), ("ports", 15), ("slots", 0)):
            await self.write(ctx, block, name, value, index)


def commit_cycles(tenants: int, *, checked: bool, quota: int = QUOTA, wait: int = 0) -> tuple[int, int, int]:
    """From the first cycle of the commit's access to the new table, its first admission, and that packet's grant.

    wait: cycles that everything begins later.
    """
    found = []

    async def scenario(bench: Bench, ctx: Any) -> None:
        bench.start_traffic(ctx)
        await bench.tick(ctx, 20 + wait)
        await bench.write(ctx, "rm", "command", BEGIN)
        await bench.tick(ctx, 4)
        for tenant in range(tenants):
            await bench.write_row(ctx, "staging", tenant, quota)
        if checked:
            await bench.write(ctx, "rm", "command", CHECK)
            await bench.tick(ctx, tenants + 10)
        start = bench.cycle
        await bench.write(ctx, "rm", "command", COMMIT)
        await bench.tick(ctx, tenants + 100)
        found.extend(cycle - start for cycle in (bench.changed, bench.admitted, bench.granted))

    Bench(tenants).measure(scenario)
    if min(found) <= 0:
        raise RuntimeError(f"the commit at {tenants} tenants did not come into force: {found}")
    return found[0], found[1], found[2]


def rule_cycles(tenants: int, rules: int, *, quota: int = QUOTA, wait: int = 0) -> tuple[int, int]:
    """From the strobe of a figure that `rules` rules watch to the new table, and to the first admission under it."""
    found = []

    async def scenario(bench: Bench, ctx: Any) -> None:
        bench.start_traffic(ctx)
        for rule in range(rules):
            await bench.write_row(ctx, "prepared", rule, quota)
            await bench.write(ctx, "rule", "threshold", 100, rule)
            await bench.write(ctx, "rule", "target", rule % tenants, rule)
            await bench.write(ctx, "rule", "watch", FIGURE | 1 << 8 | 1 << 31, rule)
        await bench.tick(ctx, tenants + wait)   # the copy that follows a reset is over
        port, start = bench.manager.figures, bench.cycle
        for name, value in (("valid", 1), ("tenant", 1), ("figure", FIGURE), ("value", 101)):
            ctx.set(getattr(port, name), value)
        await bench.tick(ctx)
        ctx.set(port.valid, 0)
        await bench.tick(ctx, tenants + 120)
        found.extend(cycle - start for cycle in (bench.changed, bench.admitted))

    Bench(tenants).measure(scenario)
    if min(found) <= 0:
        raise RuntimeError(f"{rules} rules at {tenants} tenants did not come into force: {found}")
    return found[0], found[1]


def cycles_at(tenants: int, starts: int) -> list[Figure]:
    """Commit and rules at one size. The traffic's tenant has a quota, or takes its pages from the shared pool.

    The fabric makes the sum of what is taken from the pool anew after a change, in T cycles; who needs it is held.
    """
    limit = tenants + MARGIN
    figures = []
    for quota in (QUOTA, 0):
        pages = "quota" if quota else "shared pool"
        # A packet with a quota waits for no walk: one starting cycle is as good as another.
        waits = [0] if quota else [(tenants + WALK) * number // starts for number in range(starts)]
        for checked in (False, True):
            table, admitted, granted = max(
                (commit_cycles(tenants, checked=checked, quota=quota, wait=wait) for wait in waits),
                key=lambda found: found[1])
            figures.append(Figure("commit.effect_cycles", admitted, "cycles", {"T+48": limit}, ("<=", limit), {
                "tenants": tenants, "rows_changed": tenants, "checked_before": checked, "pages": pages,
                "starts": len(waits), "table_in_force": table, "first_packet_leaves": granted}))
        for rules in (1, 16):
            table, admitted = max((rule_cycles(tenants, rules, quota=quota, wait=wait) for wait in waits),
                                  key=lambda found: found[1])
            figures.append(Figure("commit.rule_cycles", admitted, "cycles", {"T+48": limit}, ("<=", limit), {
                "tenants": tenants, "rules_due": rules, "pages": pages, "starts": len(waits), "table_in_force": table}))
    return figures


def drain_cycles(samples: int) -> np.ndarray:
    """Cycles from a commit until no packet of an older epoch is left, under traffic at line rate."""
    rm = regmap.node("rm")

    def word(name: str) -> int:
        return (rm.address + rm.register(name).offset) // 4

    found = []
    with Board(DeviceConfig(), log_inputs=False) as board:
        storm = Storm(board, 1)
        storm.commits(20)
        while len(found) < samples:
            storm.feed()
            epoch = board.epoch
            board.write(word("command"), BEGIN)
            board.write(word("base_epoch"), epoch)
            board.write(word("confirm_within"), 0)
            while board.epoch == epoch:
                board.write(word("command"), COMMIT)
                board.advance(64)
            while board.read(word("draining")):
                pass
            found.append(board.cycle - board.read(word("changed_at")))
            board.advance(500)
    return np.array(found)


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__.splitlines()[0],
                        tenants={"type": int, "nargs": "+", "default": [4, 16, 64], "help": "default %(default)s"},
                        starts={"type": int, "default": 3, "help": "starting cycles to try, default %(default)s"},
                        commits={"type": int, "default": 2_000, "help": "commits under traffic, default %(default)s"},
                        samples={"type": int, "default": 100, "help": "drains to measure, default %(default)s"})
    figures = []
    for tenants in options.tenants:
        progress(f"{tenants} tenants")
        figures += cycles_at(tenants, options.starts)
    progress("drain")
    drains = drain_cycles(options.samples)
    conditions = {"line_load": LOAD, "commits": len(drains), **machine()}
    for name, value in (("p50", np.median(drains)), ("max", drains.max())):
        figures.append(Figure(f"commit.drain_cycles_{name}", float(value), "cycles", {}, None, conditions))
    progress(f"{options.commits} commits under traffic")
    storm = run(DeviceConfig(), options.commits, 1, model=device_model(DeviceConfig()))
    figures.append(Figure(
        "commit.lost", storm.lost + storm.faults + storm.wrong, "packets or answers", {"packets": storm.packets},
        ("<=", 0), {"commits": storm.commits, "confirmed": storm.confirmed, "rolled_back": storm.rolled_back,
                    "expired": storm.expired, "at_once": storm.at_once, "refused_stale": storm.fenced,
                    "line_load": LOAD, "dropped_by_policy": storm.dropped, "cycles": storm.cycles}))
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
