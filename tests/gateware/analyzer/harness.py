"""Drives an `Analyzer` with events, reads what it publishes, and compares with the model."""

import random

from amaranth.sim import Simulator

from gateware.analyzer.analyzer import Analyzer
from gateware.csr import regmap
from tests.gateware.analyzer.model import WORDS, Cycle, Egress, Ingress, Window
from tests.gateware.csr.initiator import access

IDLE_INGRESS, IDLE_EGRESS = Ingress(), Egress()


class Traffic:
    """Random events that keep the fabric's promises: a tenant leaves only what was admitted for it."""

    def __init__(self, config, seed, *, load=0.5, tenants=None, requests=0.12):
        self._config, self._load, self._requests = config, load, requests
        self._rng = random.Random(seed)
        self._tenants = list(range(config.tenants)) if tenants is None else tenants
        self._inside, self._credit = [], 0
        self._sector = {}

    def cycle(self):
        rng, ports = self._rng, range(self._config.ports)
        ready = self._inside
        egress = [Egress(self._leave(ready)) if ready and rng.random() < self._load else IDLE_EGRESS
                  for _ in ports]
        if rng.random() < 0.03:
            self._credit = rng.getrandbits(self._config.tenants)
        return Cycle([self._ingress(port) for port in ports], egress,
                     [rng.choice([None, *self._tenants]) for _ in range(self._config.slots)],
                     self._credit if rng.random() < 0.98 else (1 << self._config.tenants) - 1)

    def _ingress(self, port):
        rng = self._rng
        event = Ingress()
        if rng.random() < self._load:
            event.admit = rng.choice(self._tenants), rng.randint(1, 2048)
            self._inside.append(event.admit)
        elif rng.random() < 0.2:
            event.drop = rng.choice([*self._tenants, self._config.tenants, 63])
        engine = self._config.engine_port
        mine = [tenant for tenant in self._tenants if port in (tenant % engine, engine)]
        if mine and rng.random() < self._requests:
            # A tenant's requests come by one port, so that their order is not the arbitration's; those at the
            # engines' port are responses, which nobody counts.
            tenant = rng.choice(mine)
            event.request = tenant, rng.choice([0, 1, 2]), self._next_sector(tenant)
        if rng.random() < 0.3:
            event.stalled = rng.choice(self._tenants)
        return event

    def _next_sector(self, tenant):
        """Mostly a few streams a tenant, so that hits at each place of the table and misses are common."""
        rng = self._rng
        stream = tenant, rng.randrange(6)
        step = rng.choice([[8, 256], [1000], [-64], [0, 1, 257, 100_000]][stream[1] % 4])
        self._sector[stream] = (self._sector.get(stream, rng.getrandbits(36)) + step) % (1 << 36)
        return self._sector[stream]

    def _leave(self, ready):
        rng = self._rng
        tenant, length = ready.pop(rng.randrange(len(ready)))
        return tenant, length, rng.getrandbits(rng.randint(1, 20)), rng.random() < 0.1


class Bench:
    """One analyzer under test. `run(testbench)` drives it; `windows` fills with what telemetry said."""

    def __init__(self, config, window, **parameters):
        self.config, self.window = config, window
        self.dut = Analyzer(config, shortest_window=window, reset_window=window, **parameters)
        self.simulator = Simulator(self.dut)
        self.simulator.add_clock(1e-8)
        self.cycle = 0
        self.words, self.windows = [], []
        self._ports = ([None] * config.ports, [None] * config.ports)

    async def step(self, ctx, events=None):
        """One cycle with `events`; returns with the next cycle begun."""
        dut = self.dut
        ctx.set(dut.cycle, self.cycle)
        if events:
            for port in range(self.config.ports):
                self._set_ingress(ctx, port, events.ingress[port])
                self._set_egress(ctx, port, events.egress[port])
            ctx.set(dut.credit, events.credit & (1 << self.config.tenants) - 1)
            for slot, tenant in zip(dut.engine_busy, events.busy, strict=True):
                ctx.set(slot, {"busy": tenant is not None, "tenant": tenant or 0})
        _, _, valid, ready, word = await ctx.tick().sample(
            dut.telemetry.valid, dut.telemetry.ready, dut.telemetry.payload)
        self.cycle += 1
        if valid and ready:
            self.words.append(word.data)
            if word.last:
                self.windows.append(self.parse(self.words))
                self.words = []

    def _set_ingress(self, ctx, port, event):
        if self._ports[0][port] is event:
            return
        self._ports[0][port] = event
        pins = self.dut.ingress[port]
        tenant, length = event.admit or (event.drop or 0, 5)
        ctx.set(pins.admit, event.admit is not None)
        ctx.set(pins.drop, event.drop is not None)
        ctx.set(pins.header, {"tenant": tenant, "length": length})
        ctx.set(pins.request, event.request is not None)
        if event.request:
            ctx.set(pins.request_tenant, event.request[0])
            ctx.set(pins.request_word, {"lba": event.request[2], "opcode": event.request[1]})
        ctx.set(pins.stalled, event.stalled is not None)
        ctx.set(pins.stalled_tenant, event.stalled or 0)

    def _set_egress(self, ctx, port, event):
        if self._ports[1][port] is event:
            return
        self._ports[1][port] = event
        pins = self.dut.egress[port]
        ctx.set(pins.leave, event.leave is not None)
        if event.leave:
            tenant, length, latency, cut = event.leave
            ctx.set(pins.header, {"tenant": tenant, "length": length})
            ctx.set(pins.latency, latency)
            ctx.set(pins.cut, cut)

    def parse(self, words):
        """Telemetry words as a `Window` (with `epoch`, `skipped`, `tag` in `extra`)."""
        tenants = self.config.tenants
        assert len(words) == 8 + 16 * tenants
        assert words[0] == 0x4D57_0200 | tenants
        rows = [dict(zip(WORDS, words[8 + 16 * tenant:24 + 16 * tenant], strict=True))
                for tenant in range(tenants)]
        window = Window(words[1], words[2] | words[3] << 32, words[4], rows)
        window.extra = {"epoch": words[5], "skipped": words[6], "tag": words[7]}
        return window

    async def read(self, ctx, block, index=None, register=None):
        """Read a register by name (`block`, row, register), or a word of a memory by index."""
        error, value, _ = await access(ctx, self.dut.bus, address(block, index, register))
        assert not error, f"{block}[{index}].{register} answered with an error"
        return value

    async def write(self, ctx, value, block, index=None, register=None):
        error, _, _ = await access(ctx, self.dut.bus, address(block, index, register), value)
        assert not error


def address(block, index=None, register=None):
    """Byte address, from the register map."""
    node = regmap.node(block)
    if node.is_memory:
        return node.address + 4 * index
    offset = next(item.offset for item in node.registers if item.name == register)
    return node.address + (index or 0) * node.stride + offset
