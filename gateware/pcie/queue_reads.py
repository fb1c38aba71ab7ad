"""`QueueReads`: the DMA reads of the host queues: descriptors of both rings, and payloads to transmit, many at a time.

`jobs` brings those of descriptors. Beside it this part goes through what is here of the transmit rings, a tenant at a
time in turn, and asks for each payload as long as the tenant has a free place for one. What comes back, in the order of
commands, goes into the stores and, of payloads, to the sender. Everything that is asked for has its place before: host
memory never waits for the fabric, nor one tenant's packets for another's.

Ports beside these: `reserved`: the next job is one of `jobs`. `failed`, held with `failed_tenant` and `failed_outcome`
until `failed_taken`: a ring that cannot be read. `hold`: packets of before a reset still leave, so that their places
are not free.
"""

from amaranth import *
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFO

from ..config import CREDIT_BEATS
from .dma import Outcome
from .queue_steps import in_turn
from .queue_store import Job, JobKind, Jobs, Status, hold_next, row
from .share import DEPTH

__all__ = ["PLACES", "QueueReads"]

#: Packets of a tenant whose payload was asked for and that the sender has not begun. Two more may be leaving.
PLACES = 14


class QueueReads(Elaboratable):
    """`steps`, `stores`: by direction, transmit first. `generations`: of the rings, by tenant."""

    def __init__(self, config, dma, steps, stores, sender, generations):
        self._config, self._dma, self._steps, self._stores = config, dma, steps, stores
        self._sender, self._generations = sender, generations
        self._unit_bits = max(config.data_width, 128)  # what is taken from the stream before descriptors are stored
        self.jobs = Jobs.create()
        self.ask = Jobs.create()
        self.reserved = Signal()
        self.failed, self.failed_taken = Signal(), Signal()
        self.failed_tenant, self.failed_outcome = Signal(6), Signal(4)
        self.hold = Signal()
        self.lookup = stores[0].look_up_descriptor()

    def elaborate(self, platform):
        m = Module()
        m.submodules.waiting = waiting = SyncFIFO(width=data.Layout.cast(Job).size, depth=DEPTH)
        self._elaborate_asks(m)
        self._elaborate_commands(m, waiting)
        job = data.View(Job, waiting.r_data)
        with m.If(waiting.r_rdy):
            with m.Switch(job.kind):
                with m.Case(JobKind.DESCRIPTORS):
                    self._take_descriptors(m, waiting, job)
                with m.Case(JobKind.PAYLOAD):
                    self._take_payload(m, waiting, job)
                with m.Case(JobKind.NOTHING):
                    self._note_result(m, waiting, job, job.result)
        return m

    def _elaborate_asks(self, m):
        """The next descriptor of a tenant is looked up and judged; then its job waits to be taken."""
        steps, tenant, last = self._steps[0], Signal(6), Signal(6)
        free = Cat(steps.between("asked", "sent", index) < PLACES for index in range(self._config.tenants))
        ready = Signal(self._config.tenants)
        m.d.comb += ready.eq(steps.passed("here", "asked") & free & steps.enabled & ~self.hold.replicate(len(ready)))
        found, job, command = self.lookup.data, self.ask.payload.job, self.ask.payload.command
        wrong = (found.length == 0) | (found.length > CREDIT_BEATS * self._config.beat_bytes)
        chosen = in_turn(m, ready, last, "ask")
        m.d.comb += [
            self.lookup.addr.eq(row(tenant, steps.asked[tenant])),
            job.kind.eq(Mux(wrong, JobKind.NOTHING, JobKind.PAYLOAD)), job.tenant.eq(tenant),
            job.place.eq(steps.asked[tenant]), job.count.eq(1),
            job.result.status.eq(Mux(wrong, Status.LENGTH, Status.DONE)),
            job.result.length.eq(Mux(wrong, 0, found.length)),
            command.tenant.eq(tenant), command.generation.eq(self._generations[tenant]),
            command.address.eq(found.address), command.length.eq(found.length),
            steps.asked_of.eq(tenant), steps.asked_by.eq(self.ask.valid & self.ask.ready),
        ]
        with m.FSM(name="ask"):
            with m.State("choose"):
                m.d.sync += [tenant.eq(chosen), last.eq(chosen)]
                with m.If(ready.any()):
                    m.next = "look up"
            with m.State("look up"):
                m.next = "offer"
            with m.State("offer"):
                enabled = steps.enabled.bit_select(tenant, 1)
                m.d.comb += self.ask.valid.eq(enabled)
                with m.If(self.ask.ready | ~enabled):
                    m.next = "choose"

    def _elaborate_commands(self, m, waiting):
        """Descriptors before payloads: they are few, and without them there is nothing to ask for."""
        commands, goes = self._dma.read_commands, Signal()
        held, valid = hold_next(m, self.jobs, self.ask, self.reserved, goes)
        uses = held.job.kind != JobKind.NOTHING
        m.d.comb += [
            commands.valid.eq(valid & uses & waiting.w_rdy), commands.payload.eq(held.command),
            goes.eq(valid & waiting.w_rdy & (commands.ready | ~uses)),
            waiting.w_data.eq(held.job), waiting.w_en.eq(goes),
        ]

    def _note_result(self, m, waiting, job, result):
        store, steps = self._stores[0].result, self._steps[0]
        m.d.comb += [store.addr.eq(row(job.tenant, job.place)), store.data.eq(result), store.en.eq(1),
                     steps.ready_of.eq(job.tenant), steps.ready_by.eq(1), waiting.r_en.eq(1)]

    def _arrived(self, m, waiting, last):
        """The last beat was taken, now or before; and the report is there."""
        report, whole, ends = self._dma.read_reports, Signal(), Signal()
        m.d.comb += ends.eq((whole | last) & report.valid)
        with m.If(last):
            m.d.sync += whole.eq(1)
        with m.If(waiting.r_en):
            m.d.sync += whole.eq(0)
        return whole, ends

    def _take_payload(self, m, waiting, job):
        beat, report, sender = self._dma.read_data, self._dma.read_reports, self._sender
        filled, last = Signal(range(CREDIT_BEATS)), Signal()
        m.d.comb += last.eq(beat.valid & beat.ready & beat.payload.last)
        whole, ends = self._arrived(m, waiting, last)
        good = report.payload.outcome == Outcome.DONE
        m.d.comb += [
            beat.ready.eq(~whole), report.ready.eq(ends),
            sender.store.addr.eq(sender.address(job.tenant, job.place, filled)),
            sender.store.data.eq(beat.payload.data), sender.store.en.eq(beat.valid & beat.ready),
        ]
        with m.If(beat.valid & beat.ready):
            m.d.sync += filled.eq(Mux(beat.payload.last, 0, filled + 1))
        with m.If(ends):
            self._note_result(m, waiting, job, Cat(
                report.payload.outcome, Mux(good, job.result.length, 0)))

    def _take_descriptors(self, m, waiting, job):
        """Beats make a unit, of one descriptor or several, which are stored one by one."""
        beat, report, width = self._dma.read_data, self._dma.read_reports, self._config.data_width
        parts, many = self._unit_bits // width, self._unit_bits // 128
        part, index, number = Signal(range(parts + 1)), Signal(range(many + 1)), Signal(5)
        kept, unit, last = Signal(self._unit_bits), Signal(self._unit_bits), Signal()
        stores, taken = part == parts - 1, index == many - 1
        m.d.comb += [unit.eq(Cat(kept[:self._unit_bits - width], beat.payload.data)),
                     last.eq(beat.valid & beat.ready & beat.payload.last)]
        whole, ends = self._arrived(m, waiting, last)
        m.d.comb += beat.ready.eq(~whole & (~stores | taken))
        with m.If(beat.valid & ~whole):
            with m.If(stores):
                m.d.sync += [number.eq(number + 1), index.eq(Mux(taken, 0, index + 1))]
            with m.If(beat.ready):
                m.d.sync += part.eq(Mux(stores | beat.payload.last, 0, part + 1))
                for place in range(parts - 1):
                    with m.If(part == place):
                        m.d.sync += kept[place * width:(place + 1) * width].eq(beat.payload.data)
        with m.Switch(job.receiving):
            for receiving, store in enumerate(self._stores):
                with m.Case(receiving):
                    port = store.descriptor
                    m.d.comb += [port.addr.eq(row(job.tenant, (job.place + number)[:len(job.place)])),
                                 port.data.eq(unit.word_select(index, 128)),
                                 port.en.eq(beat.valid & ~whole & stores & (number < job.count))]
        with m.If(ends):
            self._close_descriptors(m, waiting, job, report, number)

    def _close_descriptors(self, m, waiting, job, report, number):
        """Those of a ring that cannot be read count as here too: the ring is stopped, and all of its counts end."""
        good = report.payload.outcome == Outcome.DONE
        m.d.comb += [self.failed.eq(~good), self.failed_tenant.eq(job.tenant),
                     self.failed_outcome.eq(report.payload.outcome)]
        with m.If(good | self.failed_taken):
            m.d.comb += [report.ready.eq(1), waiting.r_en.eq(1)]
            m.d.sync += number.eq(0)
            for receiving, steps in enumerate(self._steps):
                with m.If(job.receiving == receiving):
                    m.d.comb += [steps.here_of.eq(job.tenant), steps.here_by.eq(job.count)]
