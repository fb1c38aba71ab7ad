"""`UltraScalePcie`: TLP streams to and from the AXI streams of the UltraScale+ integrated block (PG213).

    requests     -> RQ (requester request)        completions  <- RC (requester completion)
    completer_requests <- CQ (completer request)  completer_completions -> CC (completer completion)

The block is to be configured for client tags, DW alignment and no parity, with beats of 64 to 512 bits; at 512 bits
with straddling of RQ and RC (two TLPs a beat), at fewer and on CQ and CC without.
Its completer request interface is told of room for non-posted requests by `pcie_cq_np_req`; its flow control interface
(`cfg_fc_sel` is driven to "credit limit") gives the credits.

Latency: one cycle each way (a register stage), and the cycles that a descriptor takes on the AXI stream: 4 DWs before
the payload of a request, 3 before that of a completion.

Limits: `discontinue` (an uncorrectable error within the block) is not acted upon, but strobes as `discontinued`.
Completions and requests leave by different streams, and the block does not keep them in order (PG213, transaction
ordering): software that reads a register to flush DMA writes must wait for the report of these instead.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.skid import SkidBuffer
from .descriptor import DescriptorInserter, DescriptorRemover, axis_layout
from .requester import Credits
from .straddle import StraddlingInserter, StraddlingRemover, straddled_layout
from .tlp import CompletionStatus, RequestKind, check_width, completion_layout, is_posted, request_layout

__all__ = ["USER_BITS", "AxisSignature", "UltraScalePcie", "block_members"]

#: Request types of the descriptors (PG213, table of request types) that have a kind of their own.
REQUEST_TYPES = {0: RequestKind.READ, 1: RequestKind.WRITE, 2: RequestKind.IO_READ, 3: RequestKind.IO_WRITE,
                 4: RequestKind.ATOMIC, 5: RequestKind.ATOMIC, 6: RequestKind.ATOMIC, 7: RequestKind.READ_LOCKED}
#: Width of `tuser`, with beats of up to 256 bits and of 512.
USER_BITS = {"rq": (62, 137), "rc": (75, 161), "cq": (88, 183), "cc": (33, 81)}
#: Place of `discontinue` in the `tuser` of what arrives.
DISCONTINUE = {"rc": (42, 96), "cq": (41, 96)}


class AxisSignature(wiring.Signature):
    """One of the block's AXI streams, `name` in rq, rc, cq, cc, seen from its source."""

    def __init__(self, name: str, width: int):
        super().__init__({"tdata": Out(width), "tkeep": Out(width // 32), "tlast": Out(1),
                          "tuser": Out(USER_BITS[name][width == 512]), "tvalid": Out(1), "tready": In(1)})


def block_members(width: int) -> dict:
    """Ports towards the block, with its names, of beats of `width` bits; and `discontinued`."""
    return {
        "rq": Out(AxisSignature("rq", width)), "rc": In(AxisSignature("rc", width)),
        "cq": In(AxisSignature("cq", width)), "cc": Out(AxisSignature("cc", width)),
        "pcie_cq_np_req": Out(2),
        "cfg_max_payload": In(2), "cfg_max_read_req": In(3), "cfg_function_status": In(16),
        "cfg_interrupt_msix_enable": In(4), "cfg_interrupt_msix_mask": In(4),
        "cfg_fc_sel": Out(3), "cfg_fc_ph": In(8), "cfg_fc_pd": In(12), "cfg_fc_nph": In(8),
        "cfg_flr_in_process": In(4), "cfg_flr_done": Out(4),
        "discontinued": Out(1),
    }


class Enables(data.Struct):
    """Byte enables, which the block wants beside the descriptor."""

    first: 4
    last: 4


class UltraScalePcie(wiring.Component):
    """Shim with beats of `width` bits: `block_members`, and on the core's side the ports of `Endpoint`."""

    def __init__(self, width: int = 64):
        self._width = check_width(width)
        super().__init__({
            **block_members(width),
            "completer_requests": Out(stream.Signature(request_layout(width))),
            "completer_completions": In(stream.Signature(completion_layout(width))),
            "requests": In(stream.Signature(request_layout(width))),
            "completions": Out(stream.Signature(completion_layout(width))),
            "nonposted_credit": In(1),
            "max_payload": Out(3), "max_read": Out(3), "bus_master": Out(1),
            "msix_enable": Out(1), "msix_mask": Out(1), "limit": Out(Credits), "limited": Out(3),
            "function_reset": Out(1), "function_reset_done": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        self._elaborate_requests(m)
        self._elaborate_completions(m)
        self._elaborate_completer_requests(m)
        self._elaborate_completer_completions(m)
        m.d.comb += [
            self.pcie_cq_np_req.eq(self.nonposted_credit),
            self.max_payload.eq(self.cfg_max_payload), self.max_read.eq(self.cfg_max_read_req),
            self.bus_master.eq(self.cfg_function_status[2]),
            self.msix_enable.eq(self.cfg_interrupt_msix_enable[0]), self.msix_mask.eq(self.cfg_interrupt_msix_mask[0]),
            self.cfg_fc_sel.eq(0b101),
            self.limit.posted_headers.eq(self.cfg_fc_ph), self.limit.posted_data.eq(self.cfg_fc_pd),
            self.limit.nonposted_headers.eq(self.cfg_fc_nph),
            self.function_reset.eq(self.cfg_flr_in_process[0]), self.cfg_flr_done.eq(self.function_reset_done),
            self.discontinued.eq(Cat(port.tvalid & port.tready & port.tuser[DISCONTINUE[name][self._width == 512]]
                                     for name, port in (("rc", self.rc), ("cq", self.cq))).any()),
        ]
        # An unlimited field is told as 0 from the start, and never changes.
        m.d.sync += self.limited.eq(self.limited | Cat(self.cfg_fc_ph.any(), self.cfg_fc_pd.any(),
                                                       self.cfg_fc_nph.any()))
        return m

    def _insert(self, m, name, words, port, side):
        """An inserter whose output leaves at `port` through a register stage; `side` of a beat to `tuser`."""
        m.submodules[name] = inserter = DescriptorInserter(self._width, words, Enables)
        m.submodules[f"{name}_skid"] = skid = SkidBuffer(axis_layout(self._width, Enables))
        wiring.connect(m, inserter.output, skid.i)
        beat = skid.o.payload
        m.d.comb += [port.tdata.eq(beat.data), port.tkeep.eq(beat.keep), port.tlast.eq(beat.last),
                     port.tvalid.eq(skid.o.valid), skid.o.ready.eq(port.tready), port.tuser.eq(side(beat))]
        return inserter

    def _remove(self, m, name, words, port, side):
        """A remover whose input comes from `port` through a register stage."""
        m.submodules[name] = remover = DescriptorRemover(self._width, words, Enables)
        m.submodules[f"{name}_skid"] = skid = SkidBuffer(axis_layout(self._width, Enables))
        begins = Signal(init=1, name=f"{name}_begins")
        beat = skid.i.payload
        m.d.comb += [beat.data.eq(port.tdata), beat.keep.eq(port.tkeep), beat.last.eq(port.tlast),
                     beat.first.eq(begins), beat.side.eq(side(port.tuser)),
                     skid.i.valid.eq(port.tvalid), port.tready.eq(skid.i.ready)]
        with m.If(port.tvalid & port.tready):
            m.d.sync += begins.eq(port.tlast)
        wiring.connect(m, skid.o, remover.input)
        return remover

    def _last_word(self, beat):
        """Index of the last DW that is kept."""
        index = Const(0, 4)
        for lane in range(self._width // 32):
            index = Mux(beat.keep[lane], lane, index)
        return index

    def _elaborate_requests(self, m):
        header = self.requests.payload.header
        if self._width < 512:
            inserter = self._insert(m, "rq", 4, self.rq, lambda beat: Cat(beat.side.first, beat.side.last))
        else:
            inserter = self._insert_straddling(m)
        given = inserter.input.payload
        m.d.comb += [
            given.descriptor.eq(Cat(
                C(0, 2), header.address, header.length, header.kind == RequestKind.WRITE, C(0, 3), header.poisoned,
                header.requester_id, header.tag, C(0, 16), C(0, 1), header.traffic_class, header.attributes)),
            given.side.first.eq(header.first_be), given.side.last.eq(header.last_be),
            given.carried.eq(Mux(header.kind == RequestKind.WRITE, header.length, 0)),
            given.data.eq(self.requests.payload.data), given.last.eq(self.requests.payload.last),
            inserter.input.valid.eq(self.requests.valid), self.requests.ready.eq(inserter.input.ready),
        ]

    def _insert_straddling(self, m):
        m.submodules.rq = inserter = StraddlingInserter(4, Enables)
        m.submodules.rq_skid = skid = SkidBuffer(straddled_layout(Enables))
        wiring.connect(m, inserter.output, skid.i)
        beat, marks = skid.o.payload, skid.o.payload.marks
        m.d.comb += [
            self.rq.tdata.eq(beat.data), self.rq.tkeep.eq(-1), self.rq.tlast.eq(0),
            self.rq.tvalid.eq(skid.o.valid), skid.o.ready.eq(self.rq.tready),
            self.rq.tuser.eq(Cat(beat.side.first, C(0, 4), beat.side.last, C(0, 8), marks.sop, C(0, 1), marks.upper[0],
                                 C(0, 1), marks.upper[1], marks.eop, marks.eop_at))]
        return inserter

    def _elaborate_completer_completions(self, m):
        def side(beat):
            if self._width < 512:
                return C(0, 1)
            return Cat(beat.first, C(0, 5), beat.last, C(0, 1), self._last_word(beat)[:4])

        inserter, header = self._insert(m, "cc", 3, self.cc, side), self.completer_completions.payload.header
        given = inserter.input.payload
        m.d.comb += [
            given.descriptor.eq(Cat(
                header.lower_address, C(0, 9), header.byte_count, header.locked, C(0, 2),
                header.length, header.status.as_value(), header.poisoned, C(0, 1), header.requester_id,
                header.tag, header.completer_id, C(0, 1), header.traffic_class, header.attributes)),
            given.carried.eq(header.length),
            given.data.eq(self.completer_completions.payload.data),
            given.last.eq(self.completer_completions.payload.last),
            inserter.input.valid.eq(self.completer_completions.valid),
            self.completer_completions.ready.eq(inserter.input.ready),
        ]

    def _elaborate_completer_requests(self, m):
        last = 8 if self._width == 512 else 4
        remover = self._remove(m, "cq", 4, self.cq, lambda user: Cat(user[:4], user[last:last + 4]))
        beat, header = remover.output.payload, self.completer_requests.payload.header
        descriptor = beat.descriptor
        m.d.comb += [header.kind.eq(RequestKind.MESSAGE), *self._forward(remover, self.completer_requests)]
        with m.Switch(descriptor[75:79]):
            for code, kind in REQUEST_TYPES.items():
                with m.Case(code):
                    m.d.comb += header.kind.eq(kind)
        carries = is_posted(header) | (header.kind == RequestKind.IO_WRITE) | (header.kind == RequestKind.ATOMIC)
        m.d.comb += [
            header.address.eq(descriptor[2:64]), header.length.eq(descriptor[64:75]),
            header.requester_id.eq(descriptor[80:96]), header.tag.eq(descriptor[96:104]),
            header.bar.eq(descriptor[112:115]), header.traffic_class.eq(descriptor[121:124]),
            header.attributes.eq(descriptor[124:127]),
            header.first_be.eq(beat.side.first), header.last_be.eq(beat.side.last),
            remover.carried.eq(Mux(carries, header.length, 0)),
        ]

    def _elaborate_completions(self, m):
        if self._width < 512:
            remover = self._remove(m, "rc", 3, self.rc, lambda user: C(0, 8))
            m.d.comb += remover.carried.eq(self.completions.payload.header.length)
        else:
            remover = self._remove_straddling(m)
        header, descriptor = self.completions.payload.header, remover.output.payload.descriptor
        code = descriptor[12:16]
        m.d.comb += [
            *self._forward(remover, self.completions),
            header.status.eq(CompletionStatus(descriptor[43:46])), header.length.eq(descriptor[32:43]),
            header.byte_count.eq(descriptor[16:29]), header.lower_address.eq(descriptor[:7]),
            header.requester_id.eq(descriptor[48:64]), header.completer_id.eq(descriptor[72:88]),
            header.tag.eq(descriptor[64:72]), header.traffic_class.eq(descriptor[89:92]),
            header.attributes.eq(descriptor[92:95]), header.locked.eq(descriptor[29]),
            header.poisoned.eq(descriptor[46] | (code == 1)),
        ]
        # What the block itself found wrong (0: nothing, 1: poisoned, 2: bad status) ends the request as malformed.
        with m.If(code > 2):
            m.d.comb += header.status.eq(CompletionStatus.RETRY)

    def _remove_straddling(self, m):
        m.submodules.rc = remover = StraddlingRemover(3)
        m.submodules.rc_skid = skid = SkidBuffer(straddled_layout(0))
        beat, user = skid.i.payload, self.rc.tuser
        m.d.comb += [
            beat.data.eq(self.rc.tdata), skid.i.valid.eq(self.rc.tvalid), self.rc.tready.eq(skid.i.ready),
            beat.marks.sop.eq(user[64:66]), beat.marks.upper.eq(Cat(user[69], user[71])),
            beat.marks.eop.eq(user[76:78]), Value.cast(beat.marks.eop_at).eq(user[80:88]),
            remover.announced.eq(remover.beginning[32:43]),
        ]
        wiring.connect(m, skid.o, remover.input)
        return remover

    def _forward(self, remover, target):
        beat = remover.output.payload
        return [target.payload.data.eq(beat.data), target.payload.first.eq(beat.first),
                target.payload.last.eq(beat.last), target.valid.eq(remover.output.valid),
                remover.output.ready.eq(target.ready)]
