"""cocotb: the fabric by its contract alone: what is admitted leaves once, whole, in order, where the table allows.

The golden model knows the packets that were offered, the table in force and the fabric's own `admit` and `drop`
strobes, and nothing of how the fabric works: it checks each decision against the table, and every packet that leaves
against the queue of its flow (tenant, input, output).
"""

import random
from collections import defaultdict, deque
from dataclasses import dataclass

import cocotb
from amaranth.lib.data import Layout
from cocotb.triggers import FallingEdge, ReadOnly

from gateware.config import PAGE_BEATS, DeviceConfig
from gateware.fabric.events import MOST_WANTED
from gateware.manager.allocation import FULL_RATE, AllocationRow, reset_row
from gateware.stream.packet import PROCESS, PacketHeader, beat_layout
from tests.hdl.bench import Bench, parameters
from tests.hdl.cover import CoverGroup
from tests.hdl.stimulus import Sink, Source, reset, until


def config_of(given):
    return DeviceConfig(ports=given["ports"], data_width=given["width"], tenants=given["tenants"], pages=given["pages"],
                        slots=1)


def build(**model):
    from gateware.fabric.fabric import Fabric

    return Fabric(config_of(model))


BENCH = Bench(__name__, build,
              model={"ports": (3, 2, 4), "width": (64, 32), "tenants": (4, 2, 16), "pages": (32, 64)},
              traffic={"packets": (60, 150), "beats": (4, 1, 16, 40), "idle": (0.2, 0.0, 0.8),
                       "busy": (0.3, 0.0, 0.9), "commits": (3, 0, 10, 60)},
              also=[{"beats": 1, "idle": 0.0, "busy": 0.0, "commits": 60}, {"beats": 40, "busy": 0.9}])

DECISION_CYCLES = 8  # from a decision to its strobe, at most

SIZES = {"1": range(1, 2), "2..4": range(2, 5), "5..16": range(5, 17), "17..": range(17, 257)}
ENDS = {"delivered": ["delivered"], "no grant": ["no grant"], "no room": ["no room"]}
KINDS = {"host": ["host"], "network": ["network"], "engines": ["engines"]}
COVER = CoverGroup("fabric: packets",
                   {"beats": SIZES, "input": KINDS, "asked for": {"port": ["port"], "processing": ["processing"]},
                    "back-pressure": {"none": [0.0], "some": [0.2, 0.3], "heavy": [0.8, 0.9]}, "end": ENDS},
                   crosses=[("beats", "back-pressure"), ("input", "end"), ("asked for", "end")])


@dataclass
class Packet:
    """As offered."""

    tenant: int
    destination: int
    payload: bytes


class FabricModel:
    """What must happen: tables by epoch, offered packets by input, admitted ones by flow."""

    def __init__(self, config, back_pressure):
        self.config, self.back_pressure = config, back_pressure
        self.tables = {0: [reset_row(tenant, config) for tenant in range(config.tenants)]}
        self.offered = [deque() for _ in range(config.ports)]
        self.flows = defaultdict(deque)
        self.decided = self.left = 0
        self.admitted_under = defaultdict(int)

    def kind(self, port):
        return "host" if port == self.config.host_port else "engines" if port == self.config.engine_port else "network"

    def resolved(self, packet, row):
        if packet.destination != PROCESS:
            return packet.destination
        return self.config.host_port if row["host_share"] == 256 else self.config.engine_port

    def ever_fits(self, packet, epoch):
        """Whether the tenant's pages and the shared ones together can hold the packet."""
        rows = self.tables[epoch]
        shared = self.config.pages - sum(row["pages"] for row in rows)
        beats = -(-len(packet.payload) // self.config.beat_bytes)
        return -(-beats // PAGE_BEATS) <= rows[packet.tenant]["pages"] + shared

    def grants(self, port, packet, epoch):
        """Destination that the table of `epoch` resolves the packet of input `port` to, and whether it grants it: to
        the engines, only with the way back."""
        row = self.tables[epoch][packet.tenant]
        destination = self.resolved(packet, row)
        ways = {destination, port} if destination == self.config.engine_port else {destination}
        return destination, bool(row["weight"] > 0 and all(row["ports"] >> way & 1 for way in ways))

    def may_drop(self, port, packet, epoch):
        """Without a grant; at a network port for want of room; anywhere, what no room that comes free could hold."""
        _, granted = self.grants(port, packet, epoch)
        return not granted or self.kind(port) == "network" or not self.ever_fits(packet, epoch)

    def decide(self, port, admitted, header, epochs):
        """A strobe of input `port`: check it against the packet at the head and the table in force.

        epochs: those that may have been in force when it was decided; an admitted packet names its own.
        """
        packet = self.offered[port].popleft()
        assert header["tenant"] == packet.tenant, "decisions out of order"
        if admitted:
            epoch = header["epoch"]
            destination, granted = self.grants(port, packet, epoch)
            assert epoch in epochs, f"admitted under epoch {epoch}, which is not in force"
            assert granted, f"tenant {packet.tenant} was admitted to {destination} without a grant of epoch {epoch}"
            assert header["source"] == port
            assert header["destination"] == destination
            self.flows[packet.tenant, port, destination].append((packet.payload, epoch))
            self.admitted_under[epoch] += 1
        else:
            granted = all(self.grants(port, packet, epoch)[1] for epoch in epochs)
            assert any(self.may_drop(port, packet, epoch) for epoch in epochs), \
                f"the {self.kind(port)} port dropped what the table grants"
        self.decided += 1
        COVER.sample(**{"beats": -(-len(packet.payload) // self.config.beat_bytes), "input": self.kind(port),
                        "asked for": "processing" if packet.destination == PROCESS else "port",
                        "back-pressure": self.back_pressure,
                        "end": "delivered" if admitted else "no room" if granted else "no grant"})

    def leave(self, port, header, payload):
        """A packet came out of output `port`: it must be the next one of its flow, whole."""
        queue = self.flows[header["tenant"], header["source"], port]
        assert queue, f"output {port} sent a packet of tenant {header['tenant']} that nobody admitted to it"
        expected, epoch = queue.popleft()
        assert payload == expected
        assert (header["epoch"], header["destination"], header["length"]) == (epoch, port, len(payload))
        self.left += 1

    def holds(self, epoch):
        """Whether a packet that was admitted under `epoch` has not left."""
        return any(under == epoch for queue in self.flows.values() for _, under in queue)

    @property
    def in_flight(self):
        return sum(map(len, self.flows.values()))


def fields(layout, bits):
    """Fields of a structure in `bits`, as integers."""
    value = layout.from_bits(bits)
    return {name: int(getattr(value[name], "value", value[name])) for name, _ in Layout.cast(layout)}


class FabricBench:
    """Drives every port of the fabric, and its allocation bus."""

    def __init__(self, dut, rng):
        self.dut, self.rng, self.given = dut, rng, parameters()
        self.config = config_of(self.given)
        self.beat = beat_layout(self.config)
        self.model = FabricModel(self.config, self.given["busy"])
        self.bank, self.epoch = 0, 0
        self.cycle = 0
        self.ended = {}           # epoch to the cycle in which it was followed by another
        self.epoch_of = {0: 0}    # bank to the epoch that it was last in force for

    async def start(self):
        await reset(self.dut, "inputs__", "outputs__", "allocation__", "engine__", "cycle", "stall_timeout")
        if "engine__eligible" in {handle._name for handle in self.dut}:
            # Engines that can always take a request.
            self.dut.engine__eligible.value = (1 << self.config.tenants) - 1
            self.dut.engine__wanted.value = MOST_WANTED
        self.dut.allocation__sum_pages.value = self.config.pages  # the table after reset: all of them are tenant 0's
        cocotb.start_soon(self._count())
        self.sources, self.sinks = [], []
        for port in range(self.config.ports):
            idle = self._chance(self.given["idle"])
            self.sources.append((Source(self.dut, f"inputs__{port}__header"),
                                 Source(self.dut, f"inputs__{port}__data", idle)))
            self.sinks.append((Sink(self.dut, f"outputs__{port}__header", self._chance(self.given["busy"])),
                               Sink(self.dut, f"outputs__{port}__data", self._chance(self.given["busy"]))))
            cocotb.start_soon(self._collect(port))
        cocotb.start_soon(self._watch())

    def _chance(self, probability):
        return lambda: self.rng.random() < probability

    async def _count(self):
        while True:
            await FallingEdge(self.dut.clk)
            self.cycle += 1
            self.dut.cycle.value = self.cycle

    async def _watch(self):
        """The fabric's strobes, in the cycle in which they are high."""
        strobes = [[getattr(self.dut, f"ingress__{port}__{name}") for name in ("admit", "drop", "header")]
                   for port in range(self.config.ports)]
        while True:
            await FallingEdge(self.dut.clk)
            await ReadOnly()
            for port, (admit, drop, header) in enumerate(strobes):
                assert not (int(admit.value) and int(drop.value)), "admitted and dropped at once"
                if int(admit.value) or int(drop.value):
                    stamped = fields(PacketHeader, header.value.to_unsigned())
                    self.model.decide(port, bool(int(admit.value)), stamped, self.epochs)

    @property
    def epochs(self):
        """In force now, and just before: a strobe comes some cycles after its decision."""
        return [self.epoch, *(epoch for epoch, until in self.ended.items() if self.cycle - until < DECISION_CYCLES)]

    async def _collect(self, port):
        """Pair headers with bodies at one output; each header must be offered no later than its first beat."""
        headers, beats = self.sinks[port]
        bodies, body, at, left = 0, b"", 0, deque()
        while True:
            await FallingEdge(self.dut.clk)
            await ReadOnly()
            if int(beats.valid.value):
                assert len(headers.words) > bodies or int(headers.valid.value), "a beat came before its header"
            for word in beats.words[at:]:
                beat = self.beat.from_bits(word)
                assert beat.last or not beat.empty, "unused bytes before the last beat"
                body += int(beat.data).to_bytes(self.config.beat_bytes, "little")[:self.config.beat_bytes - beat.empty]
                at += 1
                if beat.last:
                    left.append(body)
                    body, bodies = b"", bodies + 1
            while left and len(headers.words) > bodies - len(left):
                header = fields(PacketHeader, headers.words[bodies - len(left)])
                self.model.leave(port, header, left.popleft())

    def offer(self, port, packet):
        """Queue a packet at input `port`."""
        size, payload = self.config.beat_bytes, packet.payload
        self.sources[port][0].words.append(PacketHeader.const({
            "tenant": packet.tenant, "destination": packet.destination, "length": len(payload),
            "flow_hash": self.rng.getrandbits(16)}).as_bits())
        for start in range(0, len(payload), size):
            part = payload[start:start + size]
            filler = self.rng.randbytes(size - len(part))  # what `empty` covers must not come out
            self.sources[port][1].words.append(self.beat.const({
                "data": int.from_bytes(part + filler, "little"), "empty": size - len(part),
                "last": start + size >= len(payload)}).as_bits())
        self.model.offered[port].append(packet)

    async def commit(self, rows):
        """Make `rows` the table in force, as the resource manager would: in a bank under which no packet is left."""
        dut = self.dut
        bank, epoch = (self.bank + 1) % 3, (self.epoch + 1) % 256
        old = self.epoch_of.get(bank)
        await until(dut, lambda: old not in self.epochs and not self.model.holds(old), 100_000, "the drain of a bank")
        dut.allocation__bank.value, dut.allocation__write.value = bank, 1
        for tenant, row in enumerate(rows):
            dut.allocation__tenant.value = tenant
            dut.allocation__row.value = AllocationRow.const(row).as_bits()
            await FallingEdge(dut.clk)
        dut.allocation__write.value = 0
        self.model.tables[epoch] = rows
        dut.allocation__active_bank.value, dut.allocation__epoch.value = bank, epoch
        dut.allocation__sum_pages.value = sum(row["pages"] for row in rows)
        self.ended[self.epoch] = self.cycle
        self.epoch_of[bank] = epoch
        self.bank, self.epoch = bank, epoch

    def random_rows(self):
        """A legal table: each tenant gets or does not get a weight, and some ports."""
        config, rng = self.config, self.rng
        return [reset_row(tenant, config) | {
            "weight": rng.choice([0, 1, 16, 512]), "rate": FULL_RATE,
            "pages": rng.randrange(config.pages // config.tenants + 1),
            "ports": rng.getrandbits(config.ports) or 1, "host_share": rng.choice([0, 256])}
            for tenant in range(config.tenants)]

    def random_packet(self):
        rng, config = self.rng, self.config
        size = rng.randrange(1, self.given["beats"] * config.beat_bytes + 1)
        return Packet(rng.randrange(config.tenants), rng.choice([*range(config.ports), PROCESS]), rng.randbytes(size))


@cocotb.test()
async def what_is_admitted_leaves_once_whole_and_in_order(dut):
    bench = FabricBench(dut, random.Random(cocotb.RANDOM_SEED))
    await bench.start()
    for port in range(bench.config.ports):
        for _ in range(bench.given["packets"]):
            bench.offer(port, bench.random_packet())
    model, total = bench.model, bench.given["packets"] * bench.config.ports
    limit = 20_000 + 20 * total * bench.given["beats"]
    for _ in range(bench.given["commits"]):
        if model.decided < total:
            await bench.commit(bench.random_rows())
            for _ in range(bench.rng.randrange(bench.rng.choice([4, 40, 400]))):
                await FallingEdge(dut.clk)
    # The last table grants everything, so that a packet that waits at the host's or the engines' port can go.
    await bench.commit([reset_row(0, bench.config) | {"weight": 64, "pages": bench.config.pages // bench.config.tenants}
                        for _ in range(bench.config.tenants)])
    await until(dut, lambda: model.decided == total and model.in_flight == 0, limit, "the traffic")
    for _ in range(100):
        await FallingEdge(dut.clk)
    assert model.left == sum(model.admitted_under.values())


@cocotb.test()
async def nothing_is_admitted_for_a_tenant_without_a_grant(dut):
    bench = FabricBench(dut, random.Random(cocotb.RANDOM_SEED))
    await bench.start()
    # A reset does not bring back what memories held at power-up: the rows of an earlier test may still be there.
    await bench.commit([reset_row(tenant, bench.config) for tenant in range(bench.config.tenants)])
    victims = range(1, bench.config.tenants)
    for port in range(bench.config.ports):
        for _ in range(20):
            bench.offer(port, Packet(bench.rng.choice(victims), bench.rng.choice([*range(bench.config.ports), PROCESS]),
                                     bench.rng.randbytes(8)))
    await until(dut, lambda: bench.model.decided == 20 * bench.config.ports, 20_000, "the decisions")
    assert not bench.model.admitted_under
