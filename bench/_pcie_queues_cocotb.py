"""Simulator's side of bench/pcie.py: packets of the host queues as fast as they go, and when which bytes passed."""

import json
from pathlib import Path

import cocotb
from _pcie_cocotb import steady
from cocotb.triggers import Timer
from cocotb.utils import get_sim_time

from device_link.registers import register_map
from gateware.config import CREDIT_BEATS, DeviceConfig
from gateware.pcie.endpoint import MSIX_ADDRESS
from gateware.pcie.host import vectors
from gateware.stream.packet import PacketHeader, beat_layout
from tests.hdl.bench import Bench, parameters
from tests.hdl.pcie_host import BASE, GENERATION, PcieLink
from tests.hdl.stimulus import Sink, Source, until

TENANTS, ORDER = 4, 6
ENTRIES = 1 << ORDER
RINGS, BUFFER = 1 << 12, 1 << 11  # bytes for the two rings of a tenant, and for each payload
REGION = RINGS + (BUFFER << ORDER)
SIZES = (256, 1500, 2048)


def config_of(width):
    return DeviceConfig(data_width=width, pcie_width=width, tenants=TENANTS, host_queues=True)


def build(width):
    from tests.hdl.pcie_top import QueuesTop

    return QueuesTop(config_of(width))


BENCH = Bench(__name__, build, model={"width": (64, 128, 256, 512)},
              traffic={"bytes": SIZES, "queues": (1, TENANTS), "way": ("tx", "rx"), "result": ("",)})


class Queues:
    """The rings of some tenants, all in one region of the host's memory."""

    def __init__(self, dut, given):
        self.dut, self.given, self.map = dut, given, register_map()
        self.config = config_of(given["width"])
        self.host = PcieLink(dut, given["width"], MSIX_ADDRESS + (4 << (vectors(self.config) - 1).bit_length()) * 4,
                             vectors(self.config))
        for port in ("receive__header__valid", "receive__data__valid", "cycle"):
            getattr(dut, port).value = 0
        dut.credit.value = (1 << TENANTS) - 1

    async def start(self):
        host = self.host
        await host.start()
        self.memory = host.rc.mem_pool.alloc_region(REGION * TENANTS)
        for tenant in range(self.given["queues"]):
            await host.grant(tenant, 0, self.memory.get_absolute_address(tenant * REGION), REGION)
            for name, value in (("tx_lo", BASE), ("tx_hi", 0), ("rx_lo", BASE + RINGS // 2), ("rx_hi", 0),
                                ("control", GENERATION << 8 | ORDER << 4 | 1)):
                await self.write(tenant, name, value)

    async def write(self, tenant, name, value):
        await self.host.window.write_dword(self.map.register(f"queue[{tenant}].{name}").address, value)

    def post(self, tenant, ring):
        """Fill a ring; the payload of each descriptor has its own buffer."""
        for index in range(ENTRIES):
            words = BASE + RINGS + BUFFER * index, 0, self.given["bytes"] | 1 << 16, index
            place = tenant * REGION + ring * RINGS // 2 + 16 * index
            self.memory[place:place + 16] = b"".join(word.to_bytes(4, "little") for word in words)

    def check(self, tenant, ring, count):
        """The descriptors were given back, done and with their length."""
        for index in range(count):
            place = tenant * REGION + ring * RINGS // 2 + 16 * index
            words = [int.from_bytes(self.memory[place + at:place + at + 4], "little") for at in (8, 12)]
            assert words == [self.given["bytes"], 1 << 31], index

    def payload(self, tenant, index):
        return tenant * REGION + RINGS + BUFFER * index


@cocotb.test()
async def packets_at_full_rate(dut):
    given = parameters()
    queues = Queues(dut, given)
    await queues.start()
    size, count = given["bytes"], ENTRIES // given["queues"]
    content = (bytes(range(256)) * 8)[:size]
    passed = await (transmitted if given["way"] == "tx" else received)(dut, queues, content, count)
    await Timer(3, "us")
    for tenant in range(given["queues"]):
        for name, expected in (("refused", 0), ("dropped", 0), ("fault", 0), (f"{given['way']}_head", count)):
            address = queues.map.register(f"queue[{tenant}].{name}").address
            assert await queues.host.window.read_dword(address) == expected, name
        queues.check(tenant, int(given["way"] == "rx"), count)
    Path(given["result"]).write_text(json.dumps(steady(passed)))


async def transmitted(dut, queues, content, count):
    """When which bytes were offered to the fabric."""
    given, beats = queues.given, -(-len(content) // queues.config.beat_bytes)
    assert beats <= CREDIT_BEATS
    sink, headers = Sink(dut, "transmit__data"), Sink(dut, "transmit__header")
    for tenant in range(given["queues"]):
        queues.post(tenant, 0)
        for index in range(count):
            queues.memory[queues.payload(tenant, index):queues.payload(tenant, index) + len(content)] = content
    for tenant in range(given["queues"]):
        await queues.write(tenant, "tx_tail", count)
    total = count * given["queues"] * beats
    await until(dut, lambda: len(sink.words) == total, 500_000, "the packets")
    beat, found = beat_layout(queues.config), b""
    for word in sink.words[:beats]:
        found += int(beat.from_bits(word).data).to_bytes(queues.config.beat_bytes, "little")
    assert found[:len(content)] == content
    assert len(headers.words) == count * given["queues"]
    return [(4 * cycle, len(content) / beats) for cycle in sink.cycles]


async def received(dut, queues, content, count):
    """When which bytes of payload arrived in the host's memory."""
    given, host, passed = queues.given, queues.host, []
    for tenant in range(given["queues"]):
        queues.post(tenant, 1)
        await queues.write(tenant, "rx_tail", count)
    base, receive = queues.memory.get_absolute_address(0), host.rc.handle_mem_write_tlp

    async def handle(tlp):
        if (tlp.address - base) % REGION >= RINGS:
            passed.append((get_sim_time("ns"), tlp.length * 4))
        await receive(tlp)

    for kind in list(host.rc.rx_tlp_handler):
        if "WRITE" in kind.name and "MEM" in kind.name:
            host.rc.rx_tlp_handler[kind] = handle
    await Timer(3, "us")  # some descriptors are there
    headers, beats = Source(dut, "receive__header"), Source(dut, "receive__data")
    layout, step = beat_layout(queues.config), queues.config.beat_bytes
    for index in range(count * given["queues"]):
        headers.words.append(PacketHeader.const({
            "tenant": index % given["queues"], "length": len(content)}).as_bits())
        beats.words += [layout.const({
            "data": int.from_bytes(content[at:at + step], "little"), "empty": max(0, at + step - len(content)),
            "last": at + step >= len(content)}).as_bits() for at in range(0, len(content), step)]
    wanted = count * given["queues"] * len(content)
    await until(dut, lambda: sum(size for _, size in passed) >= wanted, 500_000, "the packets")
    for tenant in range(given["queues"]):
        for index in range(count):
            place = queues.payload(tenant, index)
            assert queues.memory[place:place + len(content)] == content
    return passed
