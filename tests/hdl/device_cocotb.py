"""cocotb: the whole device from outside: registers over the memory-mapped bus, frames on the network, host requests.

Stimulus and expectations come from neighbours, not from the gateware: frames from dpkt, checksums from google-crc32c,
addresses from the committed register map. A table is staged and committed as a manager does it; then frames of two
tenants' VLANs and requests of the host are sent at once, and every packet must come out where the table and the
classifier send it, once, unchanged and in order.
"""

import random
from bisect import bisect_right
from collections import defaultdict, deque

import cocotb
import dpkt
import google_crc32c
from cocotb.triggers import FallingEdge, ReadOnly

from device_link.registers import MAGIC, register_map
from gateware.config import MAX_PACKET_BEATS, DeviceConfig
from gateware.stream.packet import PROCESS, FlowClass, Opcode, PacketHeader, RequestWord, beat_layout
from tests.hdl.bench import Bench, parameters
from tests.hdl.cover import CoverGroup
from tests.hdl.stimulus import Bus, Sink, Source, reset, until

BEGIN, COMMIT, OK = 1, 3, 0
STATUS_OK, SHARD_CRC32C = 0, 1
VLAN = 100  # of tenant 0; tenant t has VLAN + t
FRAME_BYTES = 14 + 4 + 20 + 8  # of a frame, before its datagram's payload
HOST, NET, ENGINE = "host", "network", "engine"


def config_of(given):
    # `small`: without the blocks that the small board leaves out.
    left_out = {"rules": 2, "histograms": False, "access_patterns": False, "forecasts": False} if given["small"] else {}
    return DeviceConfig(ports=3, data_width=given["width"], tenants=given["tenants"], slots=1, pages=32,
                        classifier_entries=4, **left_out)


def build(**model):
    from gateware.device import Device

    return Device(config_of(model))


BENCH = Bench(__name__, build, model={"width": (64, 32), "tenants": (2,), "small": (0, 1)},
              traffic={"packets": (25, 80), "bytes": (300, 64, 1500), "idle": (0.1, 0.6), "busy": (0.2, 0.0, 0.8)},
              seeds=1)

COVER = CoverGroup("device: packets", {"way": {"network to host": [HOST], "host to network": [NET],
                                               "host to engine": [ENGINE]},
                                       "bytes": {"..64": range(65), "65..512": range(65, 513),
                                                 "513..": range(513, 4096)}},
                   crosses=[("way", "bytes")])


def frame(rng, tenant, size):
    """An Ethernet frame in the tenant's VLAN."""
    ip = dpkt.ip.IP(src=rng.randbytes(4), dst=rng.randbytes(4), p=dpkt.ip.IP_PROTO_UDP,
                    data=dpkt.udp.UDP(sport=rng.getrandbits(16), dport=53, data=rng.randbytes(size)))
    ip.data.ulen = len(ip.data)
    tag = dpkt.ethernet.VLANtag8021Q(id=VLAN + tenant)
    return bytes(dpkt.ethernet.Ethernet(src=rng.randbytes(6), dst=rng.randbytes(6), type=dpkt.ethernet.ETH_TYPE_IP,
                                        vlan_tags=[tag], data=ip))


class DeviceBench:
    """One device with a driver on each of its ports."""

    def __init__(self, dut):
        self.dut, self.given, self.map = dut, parameters(), register_map()
        self.rng = random.Random(cocotb.RANDOM_SEED)
        self.config = config_of(self.given)
        self.beat = beat_layout(self.config)
        # A longer packet is dropped: at 4 bytes a beat, one of more than 1,024.
        self.most_bytes = min(self.given["bytes"], MAX_PACKET_BEATS * self.config.beat_bytes - FRAME_BYTES)
        self.expected = defaultdict(deque)  # (output, tenant) to what must come out, in order
        self.left = 0
        self.frame_ends, self.frames_out = [], 0

    async def start(self):
        dut = self.dut
        await reset(dut, "mmio__", "link_rx__", "host_rx__", "net_rx__", "uart_pins", "boot_nonce", "uid")
        dut.uart_rx.value = dut.telemetry__ready.value = dut.link_tx__ready.value = 1
        self.bus = Bus(dut, "mmio")
        busy = self._chance(self.given["busy"])
        self.host = Source(dut, "host_rx__header"), Source(dut, "host_rx__data", self._chance(self.given["idle"]))
        self.net = Source(dut, "net_rx__0", self._waits)
        for name in ("host_tx", "net_tx__0"):
            cocotb.start_soon(self._collect(name, Sink(dut, f"{name}__header", busy), Sink(dut, f"{name}__data", busy)))

    def _chance(self, probability):
        return lambda: self.rng.random() < probability

    def _waits(self):
        """Idle cycles, and no second frame on the way: a network port may drop what exceeds the guarantee."""
        on_the_way = bisect_right(self.frame_ends, self.net.taken) - self.frames_out
        return on_the_way > 0 or self.rng.random() < self.given["idle"]

    async def write(self, name, value):
        await self.bus.write(self.map.register(name).address, value)

    async def read(self, name):
        return await self.bus.read(self.map.register(name).address)

    async def command(self, op):
        await self.write("rm.command", op)
        for _ in range(100):
            status = self.map.register("rm.status").decode(await self.read("rm.status"))
            if not status.busy:
                return status.result
        raise AssertionError("the command does not end")

    async def _collect(self, name, headers, beats):
        """Pair headers with bodies, and compare each packet with the next one expected of its tenant."""
        body, at, bodies = b"", 0, deque()
        taken = 0
        while True:
            await FallingEdge(self.dut.clk)
            await ReadOnly()
            for word in beats.words[at:]:
                at += 1
                beat = self.beat.from_bits(word)
                body += int(beat.data).to_bytes(self.config.beat_bytes, "little")[:self.config.beat_bytes - beat.empty]
                if beat.last:
                    bodies.append(body)
                    body = b""
            while bodies and len(headers.words) > taken:
                header = PacketHeader.from_bits(headers.words[taken])
                taken += 1
                self._compare(name, int(header.tenant), int(header.length), bodies.popleft())

    def _compare(self, name, tenant, length, body):
        queue = self.expected[name, tenant]
        assert queue, f"{name} sent a packet of tenant {tenant} that nobody expects"
        way, want = queue.popleft()
        assert length == len(body)
        assert body == want, f"{name}, tenant {tenant}"
        self.left += 1
        self.frames_out += way == HOST

    def beats(self, payload):
        size = self.config.beat_bytes
        for start in range(0, len(payload), size):
            part = payload[start:start + size]
            yield self.beat.const({"data": int.from_bytes(part, "little"), "empty": size - len(part),
                                   "last": start + size >= len(payload)}).as_bits()

    def from_network(self, tenant):
        data = frame(self.rng, tenant, self.rng.randrange(1, self.most_bytes + 1))
        self.net.words += self.beats(data)
        self.frame_ends.append(len(self.net.words))
        self.expected["host_tx", tenant].append((HOST, data))
        COVER.sample(way=HOST, bytes=len(data))

    def from_host(self, tenant, destination, payload, flow_class):
        self.host[0].words.append(PacketHeader.const({
            "tenant": tenant, "destination": destination, "length": len(payload), "flow_class": flow_class}).as_bits())
        self.host[1].words += self.beats(payload)
        COVER.sample(way=ENGINE if destination == PROCESS else NET, bytes=len(payload))

    def request(self, tenant, sequence):
        """A request to the engine: the response is its first eight bytes, its CRC-32C, the status and the shard."""
        word = RequestWord.const({"lba": self.rng.getrandbits(36), "opcode": Opcode.WRITE, "sequence": sequence})
        payload = word.as_bits().to_bytes(8, "little") + self.rng.randbytes(8 * self.rng.randrange(1, 20))
        self.from_host(tenant, PROCESS, payload, FlowClass.REQUEST)
        answer = payload[:8] + google_crc32c.value(payload).to_bytes(4, "little")
        self.expected["host_tx", tenant].append((ENGINE, answer + bytes([STATUS_OK, SHARD_CRC32C, 0, 0])))


@cocotb.test()
async def the_device_describes_itself_and_refuses_what_it_does_not_have(dut):
    bench = DeviceBench(dut)
    await bench.start()
    assert await bench.read("id.magic") == MAGIC
    assert await bench.read("id.map_hash") == bench.map.hash
    config = bench.map.register("id.config0").decode(await bench.read("id.config0"))
    assert (config.ports, config.tenants, config.slots) == (3, bench.config.tenants, 1)
    _, error = await bench.bus.access(0x3FFFC, False)
    assert error


@cocotb.test()
async def every_packet_comes_out_where_table_and_classifier_send_it(dut):
    bench = DeviceBench(dut)
    await bench.start()
    rng, tenants, given = bench.rng, range(bench.config.tenants), bench.given
    assert await bench.command(BEGIN) == OK
    for tenant in tenants:
        for register, value in (("weight", rng.randrange(1, 1000)), ("pages", bench.config.pages // len(tenants)),
                                ("ports", 0b111), ("slots", 0)):
            await bench.write(f"staging[{tenant}].{register}", value)
        action = bench.map.register("classifier[0].action")
        await bench.write(f"classifier[{tenant}].key_lo", VLAN + tenant)
        await bench.write(f"classifier[{tenant}].action", action.encode(
            {"enable": 1, "kind": 1, "port": 1, "tenant": tenant, "destination": 0}))
    assert await bench.command(COMMIT) == OK
    assert dut.epoch.value.to_unsigned() == 1
    for _ in range(given["packets"]):
        bench.from_network(rng.choice(tenants))
        data = rng.randbytes(rng.randrange(1, bench.most_bytes + 1))
        tenant = rng.choice(tenants)
        bench.from_host(tenant, 1, data, FlowClass.BEST_EFFORT)
        bench.expected["net_tx__0", tenant].append((NET, data))
    await until(dut, lambda: bench.left == 2 * given["packets"], 400_000, "the traffic")
    for sequence in range(given["packets"]):
        bench.request(rng.choice(tenants), sequence)
    await until(dut, lambda: bench.left == 3 * given["packets"], 400_000, "the requests")
    assert await bench.read("port[1].dropped") == 0
