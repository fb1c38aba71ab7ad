"""`Endpoint`: the core of one function, on vendor-neutral TLP streams.

    completer requests  -> Completer -> bus (to the device's registers)
    registers (from the device's register bus) -> MSI-X table | memory table
    DMA commands, data  -> DmaWriter, DmaReader (each behind a gate) -> RequestMux -> requests
    raised vectors      -> MsixTable ------------------------------------^

BAR0 is the register bus, whole. What the core serves itself is part of it, so that whoever reaches the device's
registers reaches it too: the MSI-X table at `MSIX_ADDRESS` with its pending bits at `Endpoint.pba_address`, and the
memory table at `TABLE_ADDRESS`, the blocks `msix` and `region` of the register map.

A function-level reset (6.6.2), which `function_reset` asks for by a level, ends with a cycle of `function_reset_done`:
no new request is sent, the one that has begun is finished (with zeros if its data do not come), then engines and MSI-X
table are as after reset, except that tags of unanswered requests stay out of use until their completions have come. The
memory table, the register bus and the allocation are not touched. Offers of data and reports are withdrawn.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..csr.bus import CsrSignature
from ..csr.decoder import CsrDecoder
from ..csr.regmap import WORD_ADDRESS_WIDTH, node
from .completer import Completer
from .dma_read import TIMEOUT_BITS, DmaReader
from .dma_write import DmaWriter
from .msix import MsixTable
from .protection import REGIONS, RegionTable
from .requester import Credits, RequestMux
from .share import DmaSignature
from .tlp import check_width, completion_layout, request_layout

__all__ = ["MSIX_ADDRESS", "TABLE_ADDRESS", "Endpoint", "LinkSignature", "link_members"]

#: Byte addresses in BAR0.
MSIX_ADDRESS, TABLE_ADDRESS = node("msix").address, node("region").address


def link_members(width: int) -> dict:
    """Ports of the core towards the link: TLP streams, and what the hard IP tells of the function's configuration."""
    return {
        "completer_requests": In(stream.Signature(request_layout(width))),
        "completer_completions": Out(stream.Signature(completion_layout(width))),
        "requests": Out(stream.Signature(request_layout(width))),
        "completions": In(stream.Signature(completion_layout(width))),
        "nonposted_credit": Out(1),
        "function_id": In(16), "max_payload": In(3), "max_read": In(3),
        "bus_master": In(1), "msix_enable": In(1), "msix_mask": In(1),
        "limit": In(Credits), "limited": In(3),
        "function_reset": In(1), "function_reset_done": Out(1),
    }


class LinkSignature(wiring.Signature):
    """`link_members` of beats of `width` bits, seen from the core."""

    def __init__(self, width: int):
        self.width = check_width(width)
        super().__init__(link_members(width))

    def __eq__(self, other):
        return isinstance(other, LinkSignature) and self.width == other.width


class Endpoint(wiring.Component):
    """Endpoint core with beats of `width` bits, for `tenants` tenants and `vectors` interrupt vectors."""

    def __init__(self, width: int = 64, tenants: int = 16, vectors: int = 16, tags: int = 32, read_bytes: int = 512):
        self._width = check_width(width)
        self._completer = Completer(width)
        self._table = RegionTable(tenants)
        self._msix = MsixTable(width, vectors)
        self._writer, self._reader = DmaWriter(width), DmaReader(width, tags, read_bytes)
        self._tenants, self._vectors = tenants, vectors
        super().__init__({
            **link_members(width),
            # Towards the device
            "bus": Out(CsrSignature(WORD_ADDRESS_WIDTH)),
            "registers": In(CsrSignature(WORD_ADDRESS_WIDTH)),
            "dma": In(DmaSignature(width)),
            "raised": In(vectors),
            "timeout": In(TIMEOUT_BITS, init=(1 << TIMEOUT_BITS) - 1),
            # Strobes for counters
            "poisoned": Out(1), "unsupported": Out(1), "write_refused": Out(1), "read_refused": Out(1),
            "unexpected": Out(1), "blocked": Out(1),
        })

    @property
    def pba_address(self) -> int:
        """Byte address of the MSI-X pending bits in BAR0."""
        return MSIX_ADDRESS + 4 * self._msix.pba

    def elaborate(self, platform):
        m = Module()
        reset, quiet = Signal(), Signal()  # the engines are being reset; they send nothing new
        insert = ResetInserter(reset)
        m.submodules.completer = completer = self._completer
        m.submodules.table = table = self._table
        m.submodules.msix = insert(self._msix)
        m.submodules.writer, m.submodules.reader = insert(self._writer), insert(self._reader)
        m.submodules.mux = mux = RequestMux(self._width, 3)
        writer, reader, msix = self._writer, self._reader, self._msix
        for inner, outer in (
                (completer.requests, self.completer_requests), (reader.completions, self.completions),
                (writer.commands, self.dma.write_commands), (reader.commands, self.dma.read_commands)):
            wiring.connect(m, wiring.flipped(outer), inner)
        for inner, outer in (
                (completer.completions, self.completer_completions), (mux.requests, self.requests),
                (writer.reports, self.dma.write_reports), (reader.reports, self.dma.read_reports),
                (reader.data, self.dma.read_data)):
            wiring.connect(m, inner, wiring.flipped(outer))
        for index, source in enumerate((writer, reader, msix)):
            wiring.connect(m, source.requests, mux.sources[index])
        for index, engine in enumerate((writer, reader)):
            wiring.connect(m, engine.table, table.lookups[index])
            m.d.comb += [engine.requester_id.eq(self.function_id), engine.enable.eq(self.bus_master & ~quiet)]
        m.d.comb += [
            writer.data.payload.eq(Mux(quiet, 0, self.dma.write_data.payload)),
            writer.data.valid.eq(self.dma.write_data.valid | quiet),
            self.dma.write_data.ready.eq(writer.data.ready & ~quiet),
            writer.max_payload.eq(self.max_payload), reader.max_read.eq(self.max_read),
            reader.timeout.eq(self.timeout), reader.abandon.eq(reset),
            msix.enable.eq(self.msix_enable & self.bus_master & ~quiet), msix.function_mask.eq(self.msix_mask),
            msix.requester_id.eq(self.function_id), msix.raised.eq(self.raised),
            mux.limit.eq(self.limit), mux.limited.eq(self.limited),
            completer.completer_id.eq(self.function_id), self.nonposted_credit.eq(completer.nonposted_credit),
            self.poisoned.eq(completer.poisoned), self.unsupported.eq(completer.unsupported),
            self.write_refused.eq(completer.write_refused), self.unexpected.eq(reader.unexpected),
            self.read_refused.eq(self.bus.valid & self.bus.ready & self.bus.error & ~self.bus.write),
            self.blocked.eq(writer.blocked | reader.blocked),
        ]
        wiring.connect(m, completer.bus, wiring.flipped(self.bus))
        self._elaborate_registers(m, msix, table)
        self._elaborate_reset(m, mux, quiet, reset)
        return m

    def _elaborate_registers(self, m, msix, table):
        rows = self._tenants * REGIONS * 8
        m.submodules.decoder = decoder = CsrDecoder([
            range(MSIX_ADDRESS // 4, MSIX_ADDRESS // 4 + (1 << 10)),
            range(TABLE_ADDRESS // 4, TABLE_ADDRESS // 4 + rows)])
        wiring.connect(m, wiring.flipped(self.registers), decoder.bus)
        for target, port in ((decoder.targets[0], msix.bus), (decoder.targets[1], table.bus)):
            m.d.comb += [
                port.valid.eq(target.valid), port.write.eq(target.write), port.address.eq(target.address),
                port.w_data.eq(target.w_data), port.w_mask.eq(target.w_mask),
                target.ready.eq(port.ready), target.error.eq(port.error), target.r_data.eq(port.r_data),
            ]

    def _elaborate_reset(self, m, mux, quiet, reset):
        idle = ~mux.busy & ~Cat(source.valid for source in mux.sources).any()
        with m.FSM():
            with m.State("run"):
                with m.If(self.function_reset):
                    m.d.sync += quiet.eq(1)
                    m.next = "settle"
            # The gates take a cycle to see that they are closed.
            with m.State("settle"):
                m.next = "drain"
            with m.State("drain"):
                with m.If(idle):
                    m.d.comb += [reset.eq(1), self.function_reset_done.eq(1)]
                    m.d.sync += quiet.eq(0)
                    m.next = "wait"
            with m.State("wait"):
                with m.If(~self.function_reset):
                    m.next = "run"
