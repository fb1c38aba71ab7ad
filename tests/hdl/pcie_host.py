"""The neighbours of the PCIe benches, which are not ours: cocotbext-pcie's root complex and its model of the block."""

import logging

from amaranth.lib.data import Layout, StructLayout
from cocotb.triggers import FallingEdge
from cocotbext.axi import AxiStreamBus
from cocotbext.pcie.core import RootComplex
from cocotbext.pcie.xilinx.us import UltraScalePlusPcieDevice

from gateware.pcie.dma import Command, Outcome, Report
from gateware.pcie.endpoint import MSIX_ADDRESS, TABLE_ADDRESS
from tests.hdl.pcie_top import VECTORS
from tests.hdl.stimulus import Sink, Source

BAR_BYTES = 1 << 18
#: Lanes of a third-generation link that fill the beats of a width at 250 MHz.
LANES = {64: 2, 128: 4, 256: 8, 512: 16}
BASE, GENERATION = 0x10_0000, 3


def fields(layout, bits):
    value = layout.from_bits(bits)
    return {name: int(getattr(value[name], "value", value[name])) for name, _ in Layout.cast(layout)}


class PcieLink:
    """A host with the device in a slot, which has `vectors` interrupts. `window`: BAR0. Times are in nanoseconds."""

    def __init__(self, dut, width, pba_address, vectors=VECTORS):
        for name in ("cocotb.pcie", "cocotb.top", "cocotbext"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.dut, self.width, self.beat, self.vectors = dut, width, width // 8, vectors
        self.rc = RootComplex()
        self.rc.max_payload_size = 1        # 256 bytes
        self.rc.max_read_request_size = 2   # 512 bytes
        config = {name: getattr(dut, name) for name in (
            "pcie_cq_np_req", "cfg_max_payload", "cfg_max_read_req", "cfg_function_status",
            "cfg_interrupt_msix_enable", "cfg_interrupt_msix_mask", "cfg_fc_sel", "cfg_fc_ph", "cfg_fc_pd",
            "cfg_fc_nph")}
        self.dev = UltraScalePlusPcieDevice(
            pcie_generation=3, pcie_link_width=LANES[width], user_clk_frequency=250e6, alignment="dword",
            max_payload_size=1024, enable_client_tag=True, rq_straddle=width == 512, rc_straddle=width == 512,
            pf0_msix_enable=True, pf0_msix_table_size=vectors - 1,
            pf0_msix_table_bir=0, pf0_msix_table_offset=MSIX_ADDRESS, pf0_msix_pba_bir=0,
            pf0_msix_pba_offset=pba_address, user_clk=dut.clk, user_reset=dut.rst,
            **{f"{name}_bus": AxiStreamBus.from_prefix(dut, f"{name}_") for name in ("rq", "rc", "cq", "cc")}, **config)
        for log in (self.dev.log, self.rc.log, self.dev.rq_sink.log, self.dev.rc_source.log, self.dev.cq_source.log,
                    self.dev.cc_sink.log):
            log.setLevel(logging.ERROR)
        self.dev.functions[0].configure_bar(0, BAR_BYTES, ext=True)
        self.rc.make_port().connect(self.dev)
        dut.cfg_flr_in_process.value = 0

    async def start(self):
        """Bring the link up, enumerate, enable."""
        await FallingEdge(self.dut.rst)
        await self.rc.enumerate()
        self.device = self.rc.find_device(self.dev.functions[0].pcie_id)
        await self.device.enable_device()
        await self.device.set_master()
        await self.device.alloc_irq_vectors(self.vectors, self.vectors)
        self.window = self.device.bar_window[0]

    async def grant(self, tenant, index, bus, size, *, read=1, write=1, base=BASE):
        """Write a row of the memory table."""
        words = [base, 0, size, 0, bus & 0xFFFFFFFF, bus >> 32, GENERATION << 8 | write << 1 | read]
        for word, value in enumerate(words):
            await self.window.write_dword(TABLE_ADDRESS + ((tenant * 8 + index) * 8 + word) * 4, value)
        await self.window.read_dword(TABLE_ADDRESS)  # the writes were carried out


class PcieHost(PcieLink):
    """A host, and the device's side of the DMA engines."""

    def __init__(self, dut, width, pba_address):
        super().__init__(dut, width, pba_address)
        for port in ("raised", "dma__write_commands__valid", "dma__read_commands__valid", "dma__write_data__valid"):
            getattr(dut, port).value = 0
        dut.timeout.value = (1 << 24) - 1

    async def start(self, idle=lambda: False, busy=lambda: False):
        """Bring the link up; then the device side's sources and sinks."""
        dut = self.dut
        await super().start()
        self.write_commands, self.read_commands = Source(dut, "dma__write_commands"), Source(dut, "dma__read_commands")
        self.write_data = Source(dut, "dma__write_data", idle)
        self.write_reports, self.read_reports = Sink(dut, "dma__write_reports"), Sink(dut, "dma__read_reports")
        self.read_data = Sink(dut, "dma__read_data", busy)

    def command(self, tenant, offset, length, tag):
        return Command.const({"tenant": tenant, "generation": GENERATION, "address": BASE + offset, "length": length,
                              "tag": tag}).as_bits()

    def send(self, tenant, offset, data, tag):
        """Ask for a DMA write of `data`."""
        self.write_data.words += [int.from_bytes(data[at:at + self.beat], "little")
                                  for at in range(0, len(data), self.beat)]
        self.write_commands.words.append(self.command(tenant, offset, len(data), tag))

    def fetch(self, tenant, offset, length, tag):
        """Ask for a DMA read."""
        self.read_commands.words.append(self.command(tenant, offset, length, tag))

    def received(self):
        """Data of the DMA reads that are complete, in whole beats."""
        layout = StructLayout({"data": self.width, "last": 1})
        found, current = [], b""
        for word in self.read_data.words:
            beat = layout.from_bits(word)
            current += beat["data"].to_bytes(self.beat, "little")
            if beat["last"]:
                found.append(current)
                current = b""
        return found

    @staticmethod
    def outcomes(sink):
        return [(found["tag"], Outcome(found["outcome"])) for found in (fields(Report, word) for word in sink.words)]
