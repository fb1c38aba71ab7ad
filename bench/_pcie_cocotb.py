"""Simulator's side of bench/pcie.py: DMA as fast as it goes, and when which bytes passed."""

import json
from pathlib import Path

import cocotb
from cocotb.triggers import Timer
from cocotb.utils import get_sim_time

from gateware.pcie.endpoint import MSIX_ADDRESS
from tests.hdl.bench import Bench, parameters
from tests.hdl.pcie_host import PcieHost
from tests.hdl.pcie_top import VECTORS
from tests.hdl.stimulus import until

REGION = 1 << 20


def build(width):
    from tests.hdl.pcie_top import PcieTop

    return PcieTop(width)


BENCH = Bench(__name__, build, model={"width": (64, 128, 256, 512)},
              traffic={"bytes": (16384,), "commands": (12,), "result": ("",)})


@cocotb.test()
async def dma_at_full_rate(dut):
    given = parameters()
    host = PcieHost(dut, given["width"], MSIX_ADDRESS + 16 * VECTORS)
    await host.start()
    region = host.rc.mem_pool.alloc_region(REGION)
    await host.grant(0, 0, region.get_absolute_address(0), REGION)
    arrived = []
    receive = host.rc.handle_mem_write_tlp

    async def handle(tlp):
        arrived.append((get_sim_time("ns"), len(tlp.data)))
        await receive(tlp)

    for kind in list(host.rc.rx_tlp_handler):
        if "WRITE" in kind.name and "MEM" in kind.name:
            host.rc.rx_tlp_handler[kind] = handle
    size, count = given["bytes"], given["commands"]
    data = bytes(range(256)) * (size // 256)
    for tag in range(count):
        host.send(0, tag * size % (REGION // 2), data, tag)
    await until(dut, lambda: len(host.write_reports.words) == count, 1_000_000, "the writes")
    await Timer(3, "us")
    assert region[0:size] == data
    for tag in range(count):
        host.fetch(0, 0, size, tag)
    await until(dut, lambda: len(host.read_data.words) == count * size * 8 // given["width"], 1_000_000, "the reads")
    assert host.received() == [data] * count
    delivered = [(4 * cycle, given["width"] // 8) for cycle in host.read_data.cycles]
    Path(given["result"]).write_text(json.dumps({"write": steady(arrived), "read": steady(delivered)}))


def steady(passed):
    """Bytes a nanosecond from the moment at which a quarter of the bytes had passed to that at which nearly all had."""
    total, done, marks = sum(size for _, size in passed), 0, []
    for time, size in passed:
        done += size
        if done >= total // 4:
            marks.append((time, done))
    (first, before), (last, after) = marks[0], marks[int(len(marks) * 0.95)]
    return (after - before) / (last - first)
