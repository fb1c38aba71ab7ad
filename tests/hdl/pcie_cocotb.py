"""cocotb: the endpoint core behind the UltraScale+ shim, in a slot of cocotbext-pcie's root complex.

Verified in simulation: the block is a model (no data link layer faults, no power management, no FLR of its own).
"""

import random

import cocotb
from cocotb.triggers import FallingEdge, Timer, with_timeout
from cocotbext.pcie.core.tlp import CplStatus, Tlp, TlpType
from cocotbext.pcie.core.utils import PcieId

from gateware.pcie.dma import Outcome
from gateware.pcie.endpoint import MSIX_ADDRESS, TABLE_ADDRESS
from tests.hdl.bench import Bench, parameters
from tests.hdl.cover import CoverGroup
from tests.hdl.pcie_host import PcieHost
from tests.hdl.pcie_top import MAGIC, TENANTS, VECTORS
from tests.hdl.stimulus import until

PBA = MSIX_ADDRESS + 16 * VECTORS
SCRATCH = 0x30
REGION = 1 << 16


def build(width):
    from tests.hdl.pcie_top import PcieTop

    return PcieTop(width)


BENCH = Bench(__name__, build, model={"width": (64, 128, 256, 512)},
              traffic={"commands": (12, 30), "idle": (0.0, 0.4), "busy": (0.0, 0.4), "rcb": (0, 1)},
              also=[{"width": 256, "idle": 0.4, "busy": 0.4, "rcb": 1}], seeds=1)

SIZES = {"1..4": range(1, 5), "5..256": range(5, 257), "257..": range(257, 1 << 16)}
COVER = CoverGroup("pcie: DMA commands", {"way": {"write": ["write"], "read": ["read"]}, "bytes": SIZES,
                                          "alignment": {"none": range(1), "DW": [4, 8, 12], "byte": [1, 2, 3]}},
                   crosses=[("way", "bytes"), ("way", "alignment")])


async def started(dut, pauses=True):
    given, rng = parameters(), random.Random(cocotb.RANDOM_SEED)
    host = PcieHost(dut, given["width"], PBA)
    host.rc.split_on_all_rcb = bool(given["rcb"])
    await host.start(lambda: rng.random() < given["idle"] * pauses, lambda: rng.random() < given["busy"] * pauses)
    return host, rng, given


@cocotb.test()
async def registers_are_read_and_written_over_bar0(dut):
    host, rng, _ = await started(dut)
    assert await host.window.read_dword(0) == MAGIC
    for address, size in ((SCRATCH, 4), (SCRATCH + 1, 2), (SCRATCH + 3, 1)):
        data = rng.randbytes(size)
        await host.window.write(address, data)
        assert await host.window.read(address, size) == data
    # 64-bit and longer accesses, over words that the memory table keeps
    table = rng.randbytes(8 * 32)
    for start in range(0, len(table), 8):
        await host.window.write_qword(TABLE_ADDRESS + start, int.from_bytes(table[start:start + 8], "little"))
    assert await host.window.read(TABLE_ADDRESS, len(table)) == table
    assert await host.window.read_qword(TABLE_ADDRESS + 4) == int.from_bytes(table[4:12], "little")
    longer = rng.randbytes(1000)
    await host.window.write(TABLE_ADDRESS + 3, longer)
    assert await host.window.read(TABLE_ADDRESS, 1020) == table[:3] + longer + await host.window.read(
        TABLE_ADDRESS + 1003, 17)


@cocotb.test()
async def what_is_not_there_is_answered_as_the_specification_says(dut):
    host, _, _ = await started(dut)
    request = Tlp()
    request.fmt_type = TlpType.MEM_READ_64 if host.device.bar_addr[0] >> 32 else TlpType.MEM_READ
    request.set_addr_be(host.device.bar_addr[0] + 0x3F0, 4)  # a hole in the map
    answers = await host.rc.perform_nonposted_operation(request, 10_000, "ns")
    assert [completion.status for completion in answers] == [CplStatus.CA]
    assert await host.window.read_dword(0) == MAGIC  # and it goes on


@cocotb.test()
async def dma_moves_bytes_both_ways_and_only_within_its_regions(dut):
    host, rng, given = await started(dut)
    memory = [host.rc.mem_pool.alloc_region(REGION) for _ in range(TENANTS)]
    for tenant, region in enumerate(memory):
        await host.grant(tenant, tenant, region.get_absolute_address(0), REGION)
    before = [rng.randbytes(REGION) for _ in memory]
    for region, data in zip(memory, before, strict=True):
        region[0:REGION] = data
    after, reads, written = [bytearray(data) for data in before], [], []
    for tag in range(given["commands"]):
        tenant = rng.randrange(TENANTS)
        length = rng.choice([1, 3, 4, 100, 256, 1000, 4096, rng.randrange(1, 6000)])
        # Reads come from the upper half, which nothing writes.
        offset = rng.randrange(REGION // 2 - length)
        data = rng.randbytes(length)
        host.send(tenant, offset, data, tag)
        after[tenant][offset:offset + length] = data
        written.append((tag, Outcome.DONE))
        COVER.sample(way="write", bytes=length, alignment=offset % 4 or offset % 16 // 4 * 4)
        offset = REGION // 2 + rng.randrange(REGION // 2 - length)
        host.fetch(tenant, offset, length, tag)
        reads.append(before[tenant][offset:offset + length])
        COVER.sample(way="read", bytes=length, alignment=offset % 4 or offset % 16 // 4 * 4)
    host.send(1, REGION - 10, bytes(11), 254)
    host.fetch(1, REGION, 1, 255)
    await until(dut, lambda: len(host.write_reports.words) == given["commands"] + 1
                and len(host.read_reports.words) == given["commands"] + 1 and len(host.received()) > given["commands"],
                200_000, "the DMA")
    await Timer(2, "us")  # posted writes on their way
    assert host.outcomes(host.write_reports) == [*written, (254, Outcome.NO_REGION)]
    assert host.outcomes(host.read_reports) == [*written, (255, Outcome.NO_REGION)]
    for region, data in zip(memory, after, strict=True):
        assert region[0:REGION] == bytes(data)
    for found, data in zip(host.received(), reads, strict=False):
        assert found == data.ljust(-(-len(data) // host.beat) * host.beat, b"\0")


@cocotb.test()
async def a_read_of_memory_that_the_host_refuses_is_reported(dut):
    host, _, _ = await started(dut)
    await host.grant(0, 0, 0x7F00_0000, REGION)  # memory that cannot be read: completer abort
    await host.grant(1, 0, 1 << 40, REGION)
    host.fetch(0, 0, 700, 9)
    await until(dut, lambda: len(host.read_reports.words) == 1, 50_000, "the first report")

    async def refuse(tlp):
        await host.rc.send(Tlp.create_ur_completion_for_tlp(tlp, PcieId(0, 0, 0)))

    for kind in (TlpType.MEM_READ, TlpType.MEM_READ_64):
        host.rc.register_rx_tlp_handler(kind, refuse)
    host.fetch(1, 64, 8, 10)
    await until(dut, lambda: len(host.read_reports.words) == 2, 50_000, "the second report")
    assert host.outcomes(host.read_reports) == [(9, Outcome.ABORTED), (10, Outcome.UNSUPPORTED)]
    assert b"".join(host.received()).strip(b"\0") == b""


@cocotb.test()
async def interrupts_arrive_after_the_data_and_wait_while_masked(dut):
    host, rng, _ = await started(dut)
    region = host.rc.mem_pool.alloc_region(REGION)
    await host.grant(0, 0, region.get_absolute_address(0), REGION)

    async def interrupt(vector):
        await FallingEdge(dut.clk)
        dut.raised.value = 1 << vector
        await FallingEdge(dut.clk)
        dut.raised.value = 0

    for vector in range(VECTORS):
        data = rng.randbytes(3000)
        host.send(0, 5, data, vector)
        await until(dut, lambda vector=vector: len(host.write_reports.words) == vector + 1, 50_000, "the write")
        event = host.device.msi_vectors[vector].event
        event.clear()
        await interrupt(vector)
        await with_timeout(event.wait(), 10, "us")
        assert region[5:3005] == data
    control = MSIX_ADDRESS + 16 * 2 + 12
    await host.window.write_dword(control, 1)
    event = host.device.msi_vectors[2].event
    await host.window.read_dword(control)
    event.clear()
    await interrupt(2)
    await Timer(3, "us")
    assert not event.is_set()
    assert await host.window.read_dword(PBA) == 1 << 2
    await host.window.write_dword(control, 0)
    await with_timeout(event.wait(), 10, "us")
    assert await host.window.read_dword(PBA) == 0


@cocotb.test()
async def a_function_reset_ends_commands_and_leaves_the_registers(dut):
    host, _, _ = await started(dut, pauses=False)  # offers that wait are withdrawn by the reset
    region = host.rc.mem_pool.alloc_region(REGION)
    await host.grant(0, 0, region.get_absolute_address(0), REGION)
    await host.window.write_dword(SCRATCH, 0x12345678)
    # A write whose data stop coming, and reads on their way: the reset must not wait for either.
    host.write_commands.words.append(host.command(0, 0, 4096, 1))
    host.write_data.words += [0] * 8
    host.fetch(0, 0, 8192, 2)
    await Timer(1, "us")
    dut.cfg_flr_in_process.value = 1
    done = 0
    for _ in range(2000):
        await FallingEdge(dut.clk)
        done |= int(dut.cfg_flr_done.value)
        if done:
            break
    assert done == 1
    dut.cfg_flr_in_process.value = 0
    await Timer(3, "us")  # the completions of before
    host.read_data.words.clear()
    host.read_reports.words.clear()
    host.write_reports.words.clear()
    assert await host.window.read_dword(SCRATCH) == 0x12345678
    assert await host.window.read_dword(MSIX_ADDRESS + 12) == 1  # masked, as after reset
    region[0:4096] = bytes(range(256)) * 16
    host.fetch(0, 0, 4096, 3)
    await until(dut, lambda: len(host.read_reports.words) == 1 and host.received(), 50_000, "a read after the reset")
    assert host.outcomes(host.read_reports) == [(3, Outcome.DONE)]
    assert host.received() == [bytes(range(256)) * 16]
