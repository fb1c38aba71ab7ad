"""A test bench around packet ports: drivers, monitors and the allocation bus, on Amaranth's simulator.

Everything runs in one process a port, one step a clock, with idle and back-pressure patterns drawn from a seeded
generator, so that a test is the same in every run.
"""

from dataclasses import dataclass, field, replace

from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from gateware.fabric.allowances import Allowances
from gateware.fabric.shaper import Shaper
from gateware.manager.allocation import FULL_RATE, AllocationSignature, reset_row
from gateware.stream.packet import PROCESS, PacketHeader, RequestWord, beat_layout

__all__ = ["PROCESS", "Bench", "Packet", "ShaperOfRows", "commit", "delivered_as", "drive_beats", "drive_headers",
           "header_dict", "open_rows", "row", "without_stamps"]


class ShaperOfRows(wiring.Component):
    """A shaper with what its refills come from, as in a fabric."""

    def __init__(self, config):
        self._config = config
        self.allowances, self.shaper = Allowances(config), Shaper(config)
        shaper = self.shaper
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "ok": Out(shaper.ok.shape()), "ample": Out(shaper.ample.shape()),
            "charge": In(1), "tenant": In(shaper.tenant.shape()), "beats": In(shaper.beats.shape()),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.allowances, m.submodules.shaper = self.allowances, self.shaper
        wiring.connect(m, wiring.flipped(self.allocation), self.allowances.allocation)
        m.d.comb += self.shaper.refill.eq(self.allowances.refill)
        m.d.comb += [getattr(self.shaper, name).eq(getattr(self, name)) for name in ("charge", "tenant", "beats")]
        m.d.comb += [getattr(self, name).eq(getattr(self.shaper, name)) for name in ("ok", "ample")]
        return m


@dataclass(frozen=True)
class Packet:
    """One packet as offered or as delivered: header fields and payload bytes."""

    tenant: int
    destination: int
    payload: bytes
    flow_class: int = 0
    flow_hash: int = 0
    length: int | None = None   # announced; None: that of the payload
    source: int = 0
    epoch: int = 0
    timestamp: int = 0

    @property
    def announced(self) -> int:
        return len(self.payload) if self.length is None else self.length


@dataclass
class Event:
    """One strobe of the fabric: what, when, and the header's fields."""

    kind: str
    port: int
    cycle: int
    header: dict
    extra: dict = field(default_factory=dict)


async def _transferred(ctx, stream):
    """Waits for the cycle in which the sink takes what is offered."""
    while True:
        _, _, ready = await ctx.tick().sample(stream.ready)
        if ready:
            return


async def drive_headers(ctx, stream, packets):
    """Offers the headers of `packets`, one behind the other."""
    for packet in packets:
        ctx.set(stream.payload, {
            "tenant": packet.tenant, "destination": packet.destination, "length": packet.announced,
            "flow_hash": packet.flow_hash, "flow_class": packet.flow_class, "timestamp": packet.timestamp,
            "epoch": packet.epoch,
        })
        ctx.set(stream.valid, 1)
        await _transferred(ctx, stream)
    ctx.set(stream.valid, 0)


async def drive_beats(ctx, stream, packets, size, idle, done=lambda: None):
    """Offers the beats of `packets`, of `size` bytes each, and none while `idle()`; `done()` after each packet."""
    for packet in packets:
        payload = packet.payload
        for start in range(0, len(payload), size):
            while idle():
                ctx.set(stream.valid, 0)
                await ctx.tick()
            chunk = payload[start:start + size]
            ctx.set(stream.payload, {
                "data": int.from_bytes(chunk, "little"),
                "empty": size - len(chunk),
                "last": start + size >= len(payload),
            })
            ctx.set(stream.valid, 1)
            await _transferred(ctx, stream)
        done()
    ctx.set(stream.valid, 0)


HEADER_FIELDS = ("tenant", "source", "destination", "epoch", "length", "flow_hash", "flow_class", "timestamp")


def header_dict(value):
    """Fields of a simulated header, or of its bits, as integers."""
    if isinstance(value, int):
        value = PacketHeader.from_bits(value)
    return {name: (int(value[name].value) if name == "flow_class" else int(value[name])) for name in HEADER_FIELDS}


def row(config, **changes):
    """An allocation row: nothing granted, plus what is named."""
    return {**reset_row(1, config), "rate": FULL_RATE, **changes}


def open_rows(config, weight=256, pages=2, **changes):
    """Rows that grant every tenant every port."""
    everywhere = (1 << config.ports) - 1
    return [row(config, weight=weight, pages=pages, ports=everywhere, **changes) for _ in range(config.tenants)]


async def commit(ctx, allocation, rows, bank=0, epoch=0):
    """Writes `rows` into the next bank and makes it active; returns the new bank and epoch."""
    bank, epoch = (bank + 1) % 3, (epoch + 1) % 256
    ctx.set(allocation.bank, bank)
    for tenant, content in enumerate(rows):
        ctx.set(allocation.tenant, tenant)
        ctx.set(allocation.row, content)
        ctx.set(allocation.write, 1)
        await ctx.tick()
    ctx.set(allocation.write, 0)
    ctx.set(allocation.active_bank, bank)
    ctx.set(allocation.epoch, epoch)
    ctx.set(allocation.sum_pages, sum(content["pages"] for content in rows))
    return bank, epoch


class Bench:
    """Drives one fabric (or anything with its ports)."""

    def __init__(self, dut, config, stall_timeout=0):
        self.dut, self.config, self.stall_timeout = dut, config, stall_timeout
        self.cycle = 0
        self.events: list[Event] = []
        self.received: list[list[Packet]] = [[] for _ in range(config.ports)]
        self.beats_out = [0] * config.ports
        self.arrivals: list[list[int]] = [[] for _ in range(config.ports)]
        self.pending = 0          # packets that drivers still hold
        self.bank, self.epoch = 0, 0
        self.open = False         # drivers wait for the first table
        self.simulator = Simulator(dut)
        self.simulator.add_clock(1e-6)
        self.simulator.add_process(self._clock)
        for port in range(config.ports):
            self.simulator.add_process(self._watch(port))

    # -- processes --------------------------------------------------------------------------------------------

    async def _clock(self, ctx):
        """The device cycle counter, as the fabric sees it."""
        ctx.set(self.dut.stall_timeout, self.stall_timeout)
        async for _ in ctx.tick():
            self.cycle += 1
            ctx.set(self.dut.cycle, self.cycle)

    def _watch(self, port):
        ingress, egress = self.dut.ingress[port], self.dut.egress[port]

        async def process(ctx):
            ticks = ctx.tick().sample(
                self.dut.cycle, Cat(ingress.admit, ingress.drop, egress.leave, egress.cut, ingress.request,
                                    ingress.stalled),
                ingress.header.as_value(), egress.header.as_value(), egress.latency,
                ingress.request_tenant, ingress.request_word.as_value(), ingress.stalled_tenant)
            async for (_, _, cycle, strobes, header, gone, latency, tenant, word, stalled_tenant) in ticks:
                if not strobes:
                    continue
                admit, drop, leave, cut, request, stalled = (strobes >> bit & 1 for bit in range(6))
                assert not (admit and drop)
                if admit or drop:
                    kind = "admit" if admit else "drop"
                    self.events.append(Event(kind, port, cycle, header_dict(header)))
                if leave:
                    self.events.append(Event("cut" if cut else "leave", port, cycle, header_dict(gone),
                                             {"latency": latency}))
                if request:
                    word = RequestWord.from_bits(word)
                    word = {"lba": int(word.lba), "opcode": int(word.opcode.value), "sequence": int(word.sequence)}
                    self.events.append(Event("request", port, cycle, {}, {"tenant": tenant, "word": word}))
                if stalled:
                    self.events.append(Event("stalled", port, cycle, {}, {"tenant": stalled_tenant}))
        return process

    def source(self, port, packets, idle=None, after=None):
        """Adds a driver of `packets` on one input, to be started before `run`.

        `idle()` is true in cycles without a beat; nothing is offered before `after()` is true.
        """
        packets = list(packets)
        self.pending += len(packets)
        begin = after or (lambda: True)
        stream = self.dut.inputs[port]

        async def headers(ctx):
            await self._opened(ctx, begin)
            await drive_headers(ctx, stream.header, packets)

        async def beats(ctx):
            await self._opened(ctx, begin)
            await drive_beats(ctx, stream.data, packets, self.config.beat_bytes, idle or (lambda: False), self._sent)

        self.simulator.add_process(headers)
        self.simulator.add_process(beats)

    def _sent(self):
        self.pending -= 1

    async def _opened(self, ctx, begin):
        while not (self.open and begin()):
            await ctx.tick()

    def sink(self, port, busy=None, busy_headers=None):
        """Adds a monitor on one output; `busy()` is true in cycles in which it takes no beat.

        `busy_headers()`: the same for headers (default: `busy`, asked once more).
        """
        busy = busy or (lambda: False)
        self.simulator.add_process(self._take(port, busy, busy_headers or busy))

    def _take(self, port, busy, busy_headers):
        output = self.dut.outputs[port]
        layout = beat_layout(self.config)
        size = self.config.beat_bytes

        async def process(ctx):
            headers, bodies, payload = [], [], b""
            ticks = ctx.tick().sample(Cat(output.header.valid, output.header.ready, output.data.valid,
                                          output.data.ready),
                                      output.header.payload.as_value(), output.data.payload.as_value())
            ctx.set(output.header.ready, not busy_headers())
            ctx.set(output.data.ready, not busy())
            held = [None, None]
            async for _, _, flags, header, beat in ticks:
                h_valid, h_ready, d_valid, d_ready = (flags >> bit & 1 for bit in range(4))
                header_now = header if h_valid else None
                beat_now = beat if d_valid else None
                for index, now in enumerate((header_now, beat_now)):
                    assert held[index] is None or held[index] == now, "an offer changed before its transfer"
                held = [None if h_ready else header_now, None if d_ready else beat_now]
                if h_valid and h_ready:
                    headers.append(header_dict(header_now))
                if d_valid and d_ready:
                    content = layout.from_bits(beat_now)
                    data, empty, last = int(content.data), int(content.empty), int(content.last)
                    assert last or not empty
                    self.beats_out[port] += 1
                    payload += data.to_bytes(size, "little")[:size - empty]
                    if last:
                        bodies.append(payload)
                        payload = b""
                if headers and bodies:
                    self._deliver(port, headers.pop(0), bodies.pop(0))
                ctx.set(output.header.ready, not busy_headers())
                ctx.set(output.data.ready, not busy())
        return process

    def _deliver(self, port, header, payload):
        self.arrivals[port].append(self.cycle)
        self.received[port].append(Packet(payload=payload, **header))

    # -- the allocation ---------------------------------------------------------------------------------------

    async def commit(self, ctx, rows):
        """Makes `rows` the active table, as the resource manager would."""
        self.bank, self.epoch = await commit(ctx, self.dut.allocation, rows, self.bank, self.epoch)

    # -- running ----------------------------------------------------------------------------------------------

    def run(self, rows=None, script=None, cycles=None, drain=None, limit=200_000):
        """Commits `rows`, lets the drivers begin, runs `script(ctx)`, then for `cycles` or until all is done.

        Done is: every driver is empty and `drain()` (default: the fabric is idle) holds.
        """
        drain = drain or self.idle

        async def main(ctx):
            if rows is not None:
                await self.commit(ctx, rows)
            self.open = True
            if script is not None:
                await script(ctx)
            if cycles is not None:
                for _ in range(cycles):
                    await ctx.tick()
                return
            end = self.cycle + limit
            while self.pending or not drain():
                await ctx.tick().repeat(16)
                assert self.cycle < end, f"not finished after {limit} cycles"

        self.simulator.add_testbench(main)
        self.simulator.run()

    def of_kind(self, *kinds):
        return [event for event in self.events if event.kind in kinds]

    def in_flight(self):
        """Packets admitted that have not left."""
        return len(self.of_kind("admit")) - len(self.of_kind("leave", "cut"))

    def idle(self):
        """True when nothing is in the fabric and all that left has been taken."""
        delivered = sum(len(packets) for packets in self.received)
        return self.in_flight() == 0 and delivered == len(self.of_kind("leave"))


def delivered_as(packet, source):
    """The packet as it should come out, apart from the fields that depend on time."""
    return replace(packet, source=source, length=packet.announced, epoch=0, timestamp=0)


def without_stamps(packet):
    """A received packet with the time-dependent fields cleared."""
    return replace(packet, epoch=0, timestamp=0)
