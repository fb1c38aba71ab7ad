"""`QueueWrites`: the DMA writes of the host queues: received packets, and descriptors that are given back.

`jobs` brings those of descriptors, which leave as they were posted but for length and status. Beside it this part finds
the next descriptor of its tenant for each packet of the receiver, as soon as the one before has its own. A packet whose
tenant has posted nothing is lost; one whose tenant has posted something that is not here yet waits for it.

Ports beside these: `reserved`: the next job is one of `jobs`. `settled`, held until `settled_taken`: `settled_job`
ended with `settled_outcome`, and `good` of its descriptors were done. `dropped`, until `dropped_taken`: a packet of
`dropped_tenant` is lost. `posted`: tenants whose receive ring is still to be looked at.
"""

from amaranth import *
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFO

from .dma import Outcome
from .queue_store import Job, JobKind, Jobs, Status, hold_next, row
from .share import DEPTH

__all__ = ["QueueWrites"]


class QueueWrites(Elaboratable):
    """`steps`, `stores`: by direction, transmit first. `generations`: of the rings, by tenant."""

    def __init__(self, config, dma, steps, stores, receiver, generations):
        self._config, self._dma, self._steps, self._stores = config, dma, steps, stores
        self._receiver, self._generations = receiver, generations
        self._unit_bits = max(config.data_width, 128)  # of one descriptor or several, as they are put together
        self.jobs = Jobs.create()
        self.ask = Jobs.create()
        self.reserved = Signal()
        self.settled, self.settled_taken = Signal(), Signal()
        self.settled_job, self.settled_outcome, self.good = Signal(Job), Signal(4), Signal(5)
        self.dropped, self.dropped_taken, self.dropped_tenant = Signal(), Signal(), Signal(6)
        self.posted = Signal(config.tenants)
        self.lookup = stores[1].look_up_descriptor()
        self.back = [(store.look_up_descriptor(), store.look_up_result()) for store in stores]

    def elaborate(self, platform):
        m = Module()
        size = data.Layout.cast(Job).size
        m.submodules.moving = moving = SyncFIFO(width=size, depth=DEPTH)
        m.submodules.ending = ending = SyncFIFO(width=size, depth=DEPTH)
        m.submodules.giving = giving = SyncFIFO(width=size, depth=DEPTH)
        m.submodules.units = units = SyncFIFO(width=self._unit_bits + 1, depth=2)
        # The next descriptors may leave before the report of these was taken.
        m.submodules.tallies = self.tallies = SyncFIFO(width=len(self.good), depth=DEPTH)
        self._elaborate_asks(m)
        self._elaborate_commands(m, moving, ending, giving)
        self._elaborate_gather(m, giving, units, data.View(Job, giving.r_data))
        self._elaborate_data(m, moving, units, data.View(Job, moving.r_data))
        self._elaborate_reports(m, ending, data.View(Job, ending.r_data))
        return m

    def _elaborate_asks(self, m):
        """A descriptor for the packet that is next, or the decision that it is lost."""
        steps, asks, job, command = self._steps[1], self._receiver.asks, self.ask.payload.job, self.ask.payload.command
        tenant, found, lost = asks.payload.tenant, self.lookup.data, Signal()
        enabled, here = Signal(), Signal()
        fits = found.length >= asks.payload.length
        m.d.comb += [
            enabled.eq(steps.enabled.bit_select(tenant, 1)),
            here.eq(steps.here[tenant] != steps.asked[tenant]),
            self.lookup.addr.eq(row(tenant, steps.asked[tenant])),
            job.kind.eq(Mux(fits & ~lost, JobKind.PAYLOAD, JobKind.NOTHING)), job.receiving.eq(1),
            job.tenant.eq(tenant), job.place.eq(steps.asked[tenant]), job.count.eq(~lost),
            job.result.status.eq(Mux(fits, Status.DONE, Status.NO_ROOM)),
            job.result.length.eq(Mux(fits, asks.payload.length, 0)),
            command.tenant.eq(tenant), command.generation.eq(self._generations[tenant]),
            command.address.eq(found.address), command.length.eq(asks.payload.length),
            asks.ready.eq(self.ask.valid & self.ask.ready),
            steps.asked_of.eq(tenant), steps.asked_by.eq(asks.ready & ~lost),
            self.dropped_tenant.eq(tenant),
        ]
        nothing = ~self.posted.bit_select(tenant, 1) & (steps.wanted[tenant] == steps.here[tenant])
        with m.FSM(name="ask"):
            with m.State("choose"):
                m.d.sync += lost.eq(~enabled)
                with m.If(asks.valid & (here | ~enabled)):
                    m.next = "offer"  # in whose first cycle the descriptor is there
                with m.Elif(asks.valid & nothing):
                    m.d.comb += self.dropped.eq(1)
                    m.d.sync += lost.eq(1)
                    with m.If(self.dropped_taken):
                        m.next = "offer"
            with m.State("offer"):
                m.d.comb += self.ask.valid.eq(enabled | lost)
                with m.If(self.ask.ready | ~self.ask.valid):
                    m.next = "choose"

    def _elaborate_commands(self, m, moving, ending, giving):
        """Descriptors before payloads, whose rings wait for them. A lost packet needs no end."""
        commands, goes, room = self._dma.write_commands, Signal(), moving.w_rdy & ending.w_rdy
        held, valid = hold_next(m, self.jobs, self.ask, self.reserved, goes)
        uses = held.job.kind != JobKind.NOTHING
        m.d.comb += [
            commands.valid.eq(valid & uses & room), commands.payload.eq(held.command),
            goes.eq(valid & room & (commands.ready | ~uses)),
            moving.w_data.eq(held.job), ending.w_data.eq(held.job),
            giving.w_data.eq(held.job), giving.w_en.eq(goes & (held.job.kind == JobKind.DESCRIPTORS)),
            moving.w_en.eq(goes), ending.w_en.eq(goes & (held.job.count != 0)),
        ]

    def _elaborate_gather(self, m, giving, units, job):
        """Descriptors are put together to units before their turn comes, so that their beats leave without a pause."""
        many = self._unit_bits // 128
        number, index, good, gathers = Signal(5), Signal(range(many)), Signal.like(self.good), Signal()
        kept, unit, last, done = Signal(self._unit_bits), Signal(self._unit_bits), Signal(), Signal()
        descriptor, result = Signal(128), Signal.like(self.back[0][1].data)
        for receiving, (found, outcome) in enumerate(self.back):
            m.d.comb += [port.addr.eq(row(job.tenant, (job.place + number + gathers)[:len(job.place)]))
                         for port in (found, outcome)]
            with m.If(job.receiving == receiving):
                m.d.comb += [result.eq(outcome.data), descriptor.eq(Cat(
                    found.data.address, outcome.data.length, C(0, 48 - len(outcome.data.length)),
                    outcome.data.status, C(0, 11), C(1, 1)))]
        m.d.comb += [
            unit.eq(kept), unit.word_select(index, 128).eq(descriptor), done.eq(result.status == Status.DONE),
            last.eq(number + 1 == job.count), units.w_data.eq(Cat(unit, last)),
            units.w_en.eq(gathers & (last | (index == many - 1))),
            giving.r_en.eq(gathers & last), self.tallies.w_en.eq(gathers & last), self.tallies.w_data.eq(good + done),
        ]
        with m.FSM(name="gather"):
            with m.State("look up"):
                with m.If(giving.r_rdy):
                    m.next = "gather"
            with m.State("gather"):
                m.d.comb += gathers.eq(units.w_rdy)
                with m.If(gathers):
                    m.d.sync += [kept.eq(unit), number.eq(number + 1), good.eq(good + done),
                                 index.eq(Mux(index == many - 1, 0, index + 1))]
                with m.If(gathers & last):
                    m.d.sync += [number.eq(0), good.eq(0), index.eq(0)]
                    m.next = "look up"

    def _elaborate_data(self, m, moving, units, job):
        beats, target, part = self._receiver.beats, self._dma.write_data, Signal(range(2))
        width, parts = self._config.data_width, self._unit_bits // self._config.data_width
        with m.If(moving.r_rdy):
            with m.Switch(job.kind):
                with m.Case(JobKind.PAYLOAD):
                    m.d.comb += [
                        self._receiver.give.eq(1), target.valid.eq(beats.valid), beats.ready.eq(target.ready),
                        target.payload.eq(beats.payload.data),
                        moving.r_en.eq(beats.valid & beats.ready & beats.payload.last)]
                with m.Case(JobKind.NOTHING):
                    m.d.comb += [self._receiver.skip.eq(1), moving.r_en.eq(1)]
                with m.Case(JobKind.DESCRIPTORS):
                    ends = target.valid & target.ready & (part == parts - 1)
                    unit = units.r_data[:self._unit_bits]
                    m.d.comb += [
                        target.valid.eq(units.r_rdy), target.payload.eq(unit.word_select(part, width)),
                        units.r_en.eq(ends), moving.r_en.eq(ends & units.r_data[-1])]
                    with m.If(target.valid & target.ready):
                        m.d.sync += part.eq(Mux(ends, 0, part + 1))

    def _elaborate_reports(self, m, ending, job):
        report, steps, store = self._dma.write_reports, self._steps[1], self._stores[1].result
        done = report.payload.outcome == Outcome.DONE
        ready = ending.r_rdy & ((job.kind == JobKind.NOTHING) | ((job.kind == JobKind.PAYLOAD) & report.valid))
        gives = ending.r_rdy & (job.kind == JobKind.DESCRIPTORS)
        m.d.comb += [
            store.addr.eq(row(job.tenant, job.place)), store.data.eq(job.result), store.en.eq(ready),
            steps.ready_of.eq(job.tenant), steps.ready_by.eq(ready),
            self.settled.eq(gives & report.valid), self.settled_job.eq(job),
            self.settled_outcome.eq(report.payload.outcome),
            self.good.eq(self.tallies.r_data), self.tallies.r_en.eq(gives & self.settled_taken),
            report.ready.eq((ready & (job.kind == JobKind.PAYLOAD)) | (gives & self.settled_taken)),
            ending.r_en.eq(ready | (gives & self.settled_taken)),
        ]
        with m.If((job.kind == JobKind.PAYLOAD) & ~done):
            m.d.comb += store.data.eq(Cat(report.payload.outcome, C(0, len(store.data.length))))
