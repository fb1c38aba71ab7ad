"""cocotb: the whole device behind the UltraScale+ shim, under cocotbext-pcie's root complex, as a driver uses it.

Addresses come from the committed register map. Verified in simulation: the block is a model.
"""

import random

import cocotb
from cocotb.triggers import FallingEdge, Timer, with_timeout
from cocotbext.pcie.core.tlp import CplStatus, Tlp, TlpType

from device_link.registers import MAGIC, register_map
from gateware.config import DeviceConfig
from gateware.pcie.dma import Outcome
from gateware.pcie.endpoint import MSIX_ADDRESS, TABLE_ADDRESS
from gateware.pcie.host import QUEUE_VECTOR, vectors
from gateware.pcie.queue_engine import BAD_INDEX
from tests.hdl.bench import Bench, parameters
from tests.hdl.pcie_host import BASE, GENERATION, PcieLink

BEGIN, COMMIT, OK = 1, 3, 0
READ, WRITE = 1, 2
CHANGED, ENDED = 1, 3  # vectors
TENANTS, ORDER, REGION = 2, 3, 1 << 14
TX, RX, OUT, IN, SLOT = 0x000, 0x100, 0x400, 0x2000, 256


def config_of(width):
    return DeviceConfig(ports=2, data_width=width, tenants=TENANTS, slots=1, pages=32, rules=1, classifier_entries=2,
                        histograms=False, access_patterns=False, forecasts=False, pcie_width=width, host_queues=True)


def build(width):
    from gateware.pcie.card import Card

    return Card(config_of(width))


BENCH = Bench(__name__, build, model={"width": (64,)}, traffic={"packets": (12, 40)}, seeds=1)


class Driver:
    """What a driver does: registers over BAR0, memory that it grants, interrupts."""

    def __init__(self, dut):
        self.dut, self.map, self.rng = dut, register_map(), random.Random(cocotb.RANDOM_SEED)
        self.given = parameters()
        count = vectors(config_of(self.given["width"]))
        self.link = PcieLink(dut, self.given["width"], MSIX_ADDRESS + (16 << (count - 1).bit_length()), count)
        for handle in dut:
            if handle._name.startswith(("mmio__", "link_rx__", "host_rx__", "boot_nonce", "uid")):
                handle.value = 0
        dut.uart_pins.value, dut.uart_rx.value = 0, 1
        dut.telemetry__ready.value = dut.link_tx__ready.value = 1
        dut.host_tx__header__ready.value = dut.host_tx__data__ready.value = 1

    async def start(self):
        await self.link.start()
        self.memory = self.link.rc.mem_pool.alloc_region(REGION * TENANTS)
        for tenant in range(TENANTS):
            await self.link.grant(tenant, 0, self.memory.get_absolute_address(tenant * REGION), REGION)

    async def read(self, name):
        return await self.link.window.read_dword(self.map.register(name).address)

    async def write(self, name, value):
        await self.link.window.write_dword(self.map.register(name).address, value)

    async def until(self, name, value):
        for _ in range(300):
            found = await self.read(name)
            if found == value:
                return
        raise AssertionError(f"{name} is {found}, not {value}")

    def event(self, vector):
        event = self.link.device.msi_vectors[vector].event
        event.clear()
        return event

    async def commit(self):
        """All to both tenants in equal parts."""
        await self.write("rm.command", BEGIN)
        for tenant in range(TENANTS):
            for register, value in (("weight", 10), ("pages", 16), ("ports", 0b11), ("slots", 0)):
                await self.write(f"staging[{tenant}].{register}", value)
        await self.write("rm.command", COMMIT)
        for _ in range(100):
            status = self.map.register("rm.status").decode(await self.read("rm.status"))
            if not status.busy:
                return status.result
        raise AssertionError("the command does not end")

    async def transfer(self, command, offset, length):
        """Outcome of a transfer of the buffer, after its interrupt."""
        for name, value in (("address_lo", BASE + offset), ("address_hi", 0), ("length", length),
                            ("owner", GENERATION << 8)):
            await self.write(f"dma.{name}", value)
        event = self.event(ENDED)
        await self.write("dma.command", command)
        await with_timeout(event.wait(), 50, "us")
        return Outcome(await self.read("dma.status") >> 8 & 15)

    async def enable(self, tenant):
        self.memory[tenant * REGION:tenant * REGION + OUT] = bytes(OUT)
        for name, value in (("tx_lo", BASE + TX), ("tx_hi", 0), ("rx_lo", BASE + RX), ("rx_hi", 0), ("tx_tail", 0),
                            ("rx_tail", 0), ("control", GENERATION << 8 | ORDER << 4 | 1)):
            await self.write(f"queue[{tenant}].{name}", value)

    def post(self, tenant, ring, index, address, length):
        place = tenant * REGION + ring + 16 * (index % (1 << ORDER))
        words = address & 0xFFFFFFFF, address >> 32, length, 0
        self.memory[place:place + 16] = b"".join(word.to_bytes(4, "little") for word in words)

    def given_back(self, tenant, ring, index):
        place = tenant * REGION + ring + 16 * (index % (1 << ORDER)) + 8
        words = [int.from_bytes(self.memory[at:at + 4], "little") for at in (place, place + 4)]
        return words[0], words[1] >> 16 & 15, words[1] >> 31


@cocotb.test()
async def it_is_enumerated_describes_itself_and_commits_an_allocation(dut):
    driver = Driver(dut)
    await driver.start()
    assert await driver.read("id.magic") == MAGIC
    assert await driver.read("id.map_hash") == driver.map.hash
    config = driver.map.register("id.config0").decode(await driver.read("id.config0"))
    assert (config.ports, config.tenants, config.slots) == (2, TENANTS, 1)
    await driver.write("interrupt.enable", 1 << CHANGED)
    await driver.read("id.magic")
    event = driver.event(CHANGED)
    assert await driver.commit() == OK
    await with_timeout(event.wait(), 10, "us")
    assert dut.epoch.value.to_unsigned() == 1
    # A hole in the map is a completer abort, and counted; the device goes on.
    request = Tlp()
    request.fmt_type = TlpType.MEM_READ_64 if driver.link.device.bar_addr[0] >> 32 else TlpType.MEM_READ
    request.set_addr_be(driver.link.device.bar_addr[0] + 0x3FFFC, 4)
    answers = await driver.link.rc.perform_nonposted_operation(request, 20_000, "ns")
    assert [answer.status for answer in answers] == [CplStatus.CA]
    assert await driver.read("pcie.reads_refused") == 1
    assert await driver.read("id.magic") == MAGIC


@cocotb.test()
async def dma_moves_bytes_both_ways_and_what_is_not_granted_is_refused(dut):
    driver = Driver(dut)
    await driver.start()
    content = driver.rng.randbytes(3000)
    driver.memory[100:3100] = content
    assert await driver.transfer(READ, 100, 3000) is Outcome.DONE
    assert await driver.transfer(WRITE, 8001, 3000) is Outcome.DONE
    assert driver.memory[8001:11001] == content
    assert await driver.transfer(WRITE, REGION - 8, 9) is Outcome.NO_REGION
    await driver.link.grant(0, 0, 0x7F00_0000, REGION)  # memory that the host refuses to read
    assert await driver.transfer(READ, 0, 64) is Outcome.ABORTED
    assert await driver.link.window.read_dword(TABLE_ADDRESS) == BASE


@cocotb.test()
async def packets_of_two_tenants_pass_the_fabric_between_their_rings(dut):
    driver = Driver(dut)
    await driver.start()
    assert await driver.commit() == OK
    count, entries = driver.given["packets"], 1 << ORDER
    contents = [[driver.rng.randbytes(driver.rng.randrange(1, SLOT + 1)) for _ in range(count)]
                for _ in range(TENANTS)]
    events = [driver.event(QUEUE_VECTOR + tenant) for tenant in range(TENANTS)]
    for tenant in range(TENANTS):
        await driver.enable(tenant)
    for start in range(0, count, entries):
        batch = range(start, min(start + entries, count))
        for tenant in range(TENANTS):
            for index in batch:
                at, content = SLOT * (index % entries), contents[tenant][index]
                begin = tenant * REGION + OUT + at
                driver.memory[begin:begin + len(content)] = content
                driver.post(tenant, RX, index, BASE + IN + at, SLOT)
                driver.post(tenant, TX, index, BASE + OUT + at, len(content))
            await driver.write(f"queue[{tenant}].rx_tail", batch[-1] + 1)
        for tenant in range(TENANTS):
            await driver.write(f"queue[{tenant}].tx_tail", batch[-1] + 1)
        for tenant in range(TENANTS):
            await driver.until(f"queue[{tenant}].rx_head", batch[-1] + 1)
            await driver.until(f"queue[{tenant}].tx_head", batch[-1] + 1)
        await Timer(2, "us")  # posted writes may come after the answer that tells of the head
        for tenant in range(TENANTS):
            for index in batch:
                content = contents[tenant][index]
                assert driver.given_back(tenant, TX, index) == (len(content), 0, 1)
                assert driver.given_back(tenant, RX, index) == (len(content), 0, 1)
                begin = tenant * REGION + IN + SLOT * (index % entries)
                assert driver.memory[begin:begin + len(content)] == content
    assert all(event.is_set() for event in events)
    # A tail that cannot be stops the queue of its tenant, and no other.
    await driver.write("queue[1].tx_tail", count + entries + 1)
    await driver.until("queue[1].fault", BAD_INDEX)
    assert await driver.read("queue[1].control") & 1 == 0
    assert await driver.read("queue[0].control") & 1 == 1


@cocotb.test()
async def a_function_reset_ends_queues_with_descriptors_in_flight_and_keeps_the_allocation(dut):
    driver = Driver(dut)
    await driver.start()
    assert await driver.commit() == OK
    for reset in (True, False):
        await driver.enable(0)
        contents = [driver.rng.randbytes(SLOT) for _ in range(6)]
        for index, content in enumerate(contents):
            driver.memory[OUT + SLOT * index:OUT + SLOT * (index + 1)] = content
            driver.post(0, RX, index, BASE + IN + SLOT * index, SLOT)
            driver.post(0, TX, index, BASE + OUT + SLOT * index, SLOT)
        await driver.write("queue[0].rx_tail", len(contents))
        await driver.write("queue[0].tx_tail", len(contents))
        if not reset:
            break
        await Timer(driver.rng.randrange(300, 1500), "ns")
        dut.cfg_flr_in_process.value = 1
        for _ in range(2000):
            await FallingEdge(dut.clk)
            if int(dut.cfg_flr_done.value):
                break
        else:
            raise AssertionError("the reset does not end")
        dut.cfg_flr_in_process.value = 0
        await Timer(3, "us")  # what was on its way
        assert await driver.read("queue[0].control") & 1 == 0
        assert await driver.read("rm.active") & 0xFF == 1
    await driver.until("queue[0].tx_head", len(contents))
    await driver.until("queue[0].rx_head", len(contents))
    await Timer(2, "us")
    for index, content in enumerate(contents):
        assert driver.memory[IN + SLOT * index:IN + SLOT * (index + 1)] == content
