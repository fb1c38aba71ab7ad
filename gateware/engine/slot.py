"""Engine slot: a shard, the requests that wait in front of it, the meter of its work, and its watchdog.

Contract: each request packet on `requests` becomes one transfer on `answers`, in order. `assigned` announces a request
and its `price` before its header comes; `load` counts those announced and not finished, and the header queue holds
`QUEUED_REQUESTS`. The data queue takes `LATE_GRANTS` largest packets behind the one at work without making the sender
wait. Latency from a request's first beat to the shard is two cycles.

- `busy` is high while the shard works on a request of `tenant`; one that waits does not count.
- `takes` says that the next request may be granted: the slot is idle, or one request is in it and its work, if it
  takes as long as the tenant's last one (its `price`), is over in `LOOKAHEAD` cycles, or nothing but short ones are.
  `takes_two`: these are so few that two may be granted. A request that waited behind a long one would hold up its
  tenant's later ones, which other slots could answer, for the order of responses. `far` says that it would: a request
  of which more than `LOOKAHEAD` cycles are expected is in the slot.
- `finished` strobes in the cycle in which a request's work ends, with its tenant, the `price` that came with it, and
  its measured `cost`: busy cycles, at most 65535. `served` and `busy_cycles` count since reset, modulo 2**32.
- `drained` is high while `quiesce` has been so for `SETTLE` packets of the largest size and nothing is queued, at work
  or waiting to leave: requests that were granted before the fabric learned of it have then come.
- A request at work for `watchdog` cycles (0: for ever) is answered with status `TIMEOUT` and result 0; the shard is
  reset, the rest of the request is discarded, and `failed` stays high until `clear`. The slot goes on with the next.
"""

from amaranth import *
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .shard import COST_BITS, Answer, ShardId, Status, TaggedPacketSignature

__all__ = ["LATE_GRANTS", "MOST_COMING", "QUEUED_REQUESTS", "EngineSlot", "Finished", "SlotBusy"]

#: Request headers that one slot's queue holds.
QUEUED_REQUESTS = 16
#: Requests that may be on the way from the fabric.
MOST_COMING = 4
#: Largest packets that find room behind the one at work. While services are not short, one more was asked for, and at
#: most one for each slot is on the way; it takes three slots and a change of tables to bring more to one of them.
LATE_GRANTS = 3
SETTLE = LATE_GRANTS + 1
#: Cycles from `takes` to the first beat of the request that it brings, and some for a packet that goes before it.
LOOKAHEAD = 64
#: Cycles of a short request, of which a slot may hold `MOST_SHORT`: less than one is on its way.
SHORT = 8
MOST_SHORT = 4


class SlotBusy(data.Struct):
    """One slot's work as the workload analyzer sees it, cycle by cycle."""

    busy: 1
    tenant: 6


class Finished(data.Struct):
    """One request whose work has ended: `price` was charged in advance, `cost` is what it took."""

    tenant: 6
    price: COST_BITS
    cost: COST_BITS


class EngineSlot(wiring.Component):
    """One slot. shard: a component whose `slot` is a `ShardSignature`."""

    def __init__(self, config: DeviceConfig, shard: wiring.Component):
        self._config = config
        self._shard = shard
        self._largest = -(-config.max_packet_bytes // config.beat_bytes)
        super().__init__({
            "requests": In(TaggedPacketSignature(config)),
            "answers": Out(stream.Signature(Answer(config))),
            "assigned": In(1),
            "load": Out(range(QUEUED_REQUESTS + 1)),
            "price": In(COST_BITS),
            "takes": Out(1),
            "takes_two": Out(1),
            "far": Out(1),
            "busy": Out(SlotBusy),
            "finished": Out(1),
            "bill": Out(Finished),
            "served": Out(32),
            "busy_cycles": Out(32),
            "kind": Out(ShardId),
            "quiesce": In(1),
            "drained": Out(1),
            "watchdog": In(32),
            "clear": In(1),
            "failed": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        flush = Signal()
        m.submodules.shard = ResetInserter(flush)(self._shard)
        queue = TaggedPacketSignature(self._config).create()
        self._queue(m, "header", QUEUED_REQUESTS, queue)
        self._queue(m, "data", (LATE_GRANTS + 1) * self._largest, queue)

        slot, head = self._shard.slot, queue.header.payload
        m.d.comb += self.kind.eq(slot.kind)
        flushed = self._flush(m, queue, flush)
        with m.If(flush):
            m.d.comb += [
                self.answers.valid.eq(flushed),
                self.answers.payload.tenant.eq(head.packet.tenant),
                self.answers.payload.tag.eq(head.tag),
                self.answers.payload.status.eq(Status.TIMEOUT),
                self.answers.payload.shard.eq(slot.kind),
                queue.header.ready.eq(flushed & self.answers.ready),
            ]
        with m.Else():
            wiring.connect(m, slot.answers, wiring.flipped(self.answers))
            wiring.connect(m, queue, slot.request)
        self._measure(m, queue, flush)
        self._settle(m)
        return m

    def _queue(self, m, name, depth, queue):
        """Put a FIFO behind the stream `name` of the requests."""
        source, sink = getattr(self.requests, name), getattr(queue, name)
        width = Shape.cast(source.payload.shape()).width
        m.submodules[name] = part = fifo.SyncFIFOBuffered(width=width, depth=depth)
        m.d.comb += [
            part.w_data.eq(source.payload),
            part.w_en.eq(source.valid),
            source.ready.eq(part.w_rdy),
            sink.payload.eq(part.r_data),
            sink.valid.eq(part.r_rdy),
            part.r_en.eq(sink.ready),
        ]

    def _flush(self, m, queue, flush):
        """Discards what is left of a request whose time is over; returns "all of it is gone"."""
        beats = queue.data
        ended = Signal()  # the last beat of the request at work was taken
        m.d.comb += self.finished.eq(queue.header.valid & queue.header.ready)
        with m.If(self.finished):
            m.d.sync += ended.eq(0)
        with m.Elif(beats.valid & beats.ready & beats.payload.last):
            m.d.sync += ended.eq(1)
        with m.If(flush):
            m.d.comb += beats.ready.eq(~ended)
        return ended

    def _measure(self, m, queue, flush):
        """Times the request at work, and ends it when its time is over."""
        head = queue.header.payload
        elapsed = Signal(32)  # cycles before this one
        spent = Signal(33)
        over = Signal()
        largest = (1 << COST_BITS) - 1
        m.d.comb += [
            self.busy.busy.eq(queue.header.valid),
            self.busy.tenant.eq(head.packet.tenant),
            spent.eq(elapsed + 1),
            self.bill.tenant.eq(head.packet.tenant),
            self.bill.price.eq(head.price),
            self.bill.cost.eq(Mux(spent > largest, largest, spent)),
            over.eq((self.watchdog != 0) & (spent >= self.watchdog) & ~self._shard.slot.answers.valid),
        ]
        with m.If(self.finished):
            m.d.sync += [elapsed.eq(0), flush.eq(0), self.served.eq(self.served + 1)]
        with m.Elif(self.busy.busy):
            m.d.sync += elapsed.eq(spent)
            with m.If(over):
                m.d.sync += flush.eq(1)
        m.d.sync += [
            self.busy_cycles.eq(self.busy_cycles + self.busy.busy),
            self.load.eq(self.load + self.assigned - self.finished),
            self.failed.eq((self.failed & ~self.clear) | flush),
        ]
        self._ask(m, head.price, elapsed)

    def _ask(self, m, price, elapsed):
        """Asks for requests: `price` is that of the one at work, `elapsed` what it took so far."""
        def is_short(price):
            return (price != 0) & (price <= SHORT)

        near, last_price = Signal(), Signal(COST_BITS)
        others, short = Signal.like(self.load), Signal()   # requests that are not short; none of them
        with m.If(self.assigned):
            m.d.sync += last_price.eq(self.price)
        m.d.sync += others.eq(
            others + (self.assigned & ~is_short(self.price)) - (self.finished & ~is_short(price)))
        m.d.comb += [
            short.eq((others == 0) & is_short(last_price)),
            near.eq(self.busy.busy & (elapsed + LOOKAHEAD >= price)),
            self.takes.eq(~self.quiesce & ((self.load == 0) | ((self.load == 1) & near)
                                           | (short & (self.load < MOST_SHORT)))),
            self.takes_two.eq(~self.quiesce & short & (self.load < MOST_SHORT - 1)),
            self.far.eq((self.load != 0) & (~near | ((self.load != 1) & (last_price > LOOKAHEAD)))),
        ]

    def _settle(self, m):
        """Drained only when late grants have come."""
        patience = SETTLE * self._largest
        waited = Signal(range(patience + 1))
        with m.If(~self.quiesce):
            m.d.sync += waited.eq(0)
        with m.Elif(waited != patience):
            m.d.sync += waited.eq(waited + 1)
        m.d.comb += self.drained.eq((waited == patience) & (self.load == 0) & ~self.answers.valid)
