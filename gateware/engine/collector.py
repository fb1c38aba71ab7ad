"""Response collector: answers come in any order, responses of one tenant leave in the order of its requests.

Contract: `issue` opens a ticket for a request of `tenant` in the same cycle as `tag` names it; `ticket` and the request
word (`word_enable`, a bit for each half) are written until its answer comes. Every open ticket has a place, so an
answer is taken within as many cycles as there are sources, whatever happens to responses: a slow sink or a slow
request of a tenant never stops a shard. Tenants with a response that may go take turns; a response leaves two cycles
after its answer at the earliest, and responses of two beats or more follow each other without a pause.

`full[t]`: no ticket may be opened for tenant *t*. `room[t]`: `SPARE` more than one can be.
"""

from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..stream.packet import PacketSignature
from .response import ResponseWriter
from .shard import Answer, ShardId, Status, outstanding_limit, tag_shape
from .slot import MOST_COMING

__all__ = ["SPARE", "ResponseCollector", "Ticket"]

#: Tickets kept for requests that were granted before the fabric saw `room` fall.
SPARE = MOST_COMING + 1


class Ticket(data.Struct):
    """What a response copies from its request's header."""

    destination: 4
    epoch: 8
    flow_hash: 16


class ResponseCollector(wiring.Component):
    """Puts the answers of `sources` shards in order and sends the responses."""

    def __init__(self, config: DeviceConfig, sources: int):
        if sources < 1:
            raise ValueError(f"sources must be at least 1, not {sources!r}")
        self._config = config
        self._limit = outstanding_limit(config)
        super().__init__({
            "issue": In(1),
            "tenant": In(range(config.tenants)),
            "ticket": In(Ticket),
            "tag": Out(tag_shape(config)),
            "word_enable": In(2),
            "word_place": In(data.StructLayout({"tenant": range(config.tenants), "tag": tag_shape(config)})),
            "word": In(64),
            "full": Out(config.tenants),
            "room": Out(config.tenants),
            "answers": In(stream.Signature(Answer(config))).array(sources),
            "responses": Out(PacketSignature(config)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.writer = writer = ResponseWriter(self._config)
        wiring.connect(m, writer.response, wiring.flipped(self.responses))
        sent, sender = Signal(), Signal(range(self._config.tenants))
        answer, taken = self._take_answer(m)
        ready, head = self._follow_order(m, answer, taken, sent, sender)
        self._count(m, sent, sender)
        self._send(m, writer.records, answer, taken, ready, head, sent, sender)
        return m

    def _place(self, tenant, tag):
        """Address of a ticket: the tag without the bit that counts turns."""
        return Cat(tag[:-1], tenant)

    def _memory(self, m, name, shape, init=()):
        depth = self._limit << (self._config.tenants - 1).bit_length()
        m.submodules[name] = part = memory.Memory(shape=shape, depth=depth, init=init or [])
        return part

    def _take_answer(self, m):
        """One answer a cycle, sources in turn; returns (answer, strobe)."""
        sources = len(self.answers)
        answer, taken = Signal(Answer(self._config)), Signal()
        turn, chosen = Signal(range(sources)), Signal(range(sources))
        with m.Switch(turn):
            for last in range(sources):
                with m.Case(last):
                    for step in reversed(range(1, sources + 1)):
                        with m.If(self.answers[(last + step) % sources].valid):
                            m.d.comb += [chosen.eq((last + step) % sources), taken.eq(1)]
        with m.If(taken):
            m.d.sync += turn.eq(chosen)
        for index, source in enumerate(self.answers):
            m.d.comb += source.ready.eq(taken & (chosen == index))
            with m.If(chosen == index):
                m.d.comb += answer.eq(source.payload)
        return answer, taken

    def _follow_order(self, m, answer, taken, sent, sender):
        """Which tenants' next answer is there, and the number of the `sender`'s next.

        `turns` holds the upper tag bit of the last answer in each place: the place's answer is there when it is that
        of the tag asked for.
        """
        config = self._config
        m.submodules.heads = heads = memory.Memory(shape=tag_shape(config), depth=config.tenants, init=[])
        turns = self._memory(m, "turns", 1, init=[1] * (self._limit << (config.tenants - 1).bit_length()))
        head, other = heads.read_port(domain="comb"), heads.read_port(domain="comb")
        advance = heads.write_port()
        turn, mark = turns.read_port(domain="comb"), turns.write_port()
        following = Signal(tag_shape(config))
        next_is_there, is_next = Signal(), Signal()
        ready = Signal(config.tenants)
        m.d.comb += [
            head.addr.eq(sender),
            other.addr.eq(answer.tenant),
            following.eq(head.data + 1),
            advance.addr.eq(sender),
            advance.data.eq(following),
            advance.en.eq(sent),
            mark.addr.eq(self._place(answer.tenant[:len(sender)], answer.tag)),
            mark.data.eq(answer.tag[-1]),
            mark.en.eq(taken),
            turn.addr.eq(self._place(sender, following)),
            next_is_there.eq(turn.data == following[-1]),
            # The answer that comes while the one before it leaves is the next one already.
            is_next.eq(answer.tag == Mux(sent & (sender == answer.tenant), following, other.data)),
        ]
        for tenant in range(config.tenants):
            with m.If(taken & is_next & (answer.tenant == tenant)):
                m.d.sync += ready[tenant].eq(1)
            with m.Elif(sent & (sender == tenant)):
                m.d.sync += ready[tenant].eq(next_is_there)
        return ready, head.data

    def _count(self, m, sent, sender):
        """Numbers the tickets and counts each tenant's open ones."""
        config = self._config
        m.submodules.tags = tags = memory.Memory(shape=tag_shape(config), depth=config.tenants, init=[])
        tag, next_tag = tags.read_port(domain="comb"), tags.write_port()
        m.d.comb += [
            tag.addr.eq(self.tenant),
            self.tag.eq(tag.data),
            next_tag.addr.eq(self.tenant),
            next_tag.data.eq(tag.data + 1),
            next_tag.en.eq(self.issue),
        ]
        for tenant in range(config.tenants):
            open_tickets = Signal(range(self._limit + 1), name=f"open_{tenant}")
            opens, closes = self.issue & (self.tenant == tenant), sent & (sender == tenant)
            m.d.sync += open_tickets.eq(open_tickets + opens - closes)
            m.d.comb += [
                self.full[tenant].eq(open_tickets == self._limit),
                self.room[tenant].eq(open_tickets < self._limit - SPARE),
            ]

    def _send(self, m, records, answer, taken, ready, head, sent, sender):
        """Stores tickets and answers, and reads them together for the response of the tenant whose turn it is."""
        tickets = self._memory(m, "tickets", Ticket)
        words = self._memory(m, "words", unsigned(64))
        results = self._memory(m, "results", data.StructLayout({"result": 32, "status": Status, "shard": ShardId}))
        ticket, word, result = tickets.write_port(), words.write_port(granularity=32), results.write_port()
        m.d.comb += [
            ticket.addr.eq(self._place(self.tenant, self.tag)),
            ticket.data.eq(self.ticket),
            ticket.en.eq(self.issue),
            word.addr.eq(self._place(self.word_place.tenant, self.word_place.tag)),
            word.data.eq(self.word),
            word.en.eq(self.word_enable),
            result.addr.eq(self._place(answer.tenant[:len(sender)], answer.tag)),
            result.en.eq(taken),
        ]
        reads = [part.read_port() for part in (tickets, words, results)]
        record = records.payload
        for name in ("result", "status", "shard"):
            m.d.comb += [result.data[name].eq(answer[name]), record[name].eq(reads[2].data[name])]
        m.d.comb += [
            record.destination.eq(reads[0].data.destination),
            record.epoch.eq(reads[0].data.epoch),
            record.flow_hash.eq(reads[0].data.flow_hash),
            record.request_word.eq(reads[1].data),
        ]

        # The tenant is chosen in one cycle and its place read in the next that finds room for the record; it then
        # stands until it is sent, while the next one is chosen.
        above, chosen, waits = Signal.like(ready), Signal.like(sender), Signal()
        m.d.comb += [
            above.eq(ready & ~((2 << sender) - 1)[:len(ready)]),
            sent.eq(waits & (~records.valid | records.ready)),
        ]
        for candidates in (ready, above):
            for tenant in reversed(range(len(ready))):
                with m.If(candidates[tenant]):
                    m.d.comb += chosen.eq(tenant)
        for read in reads:
            m.d.comb += [read.addr.eq(self._place(sender, head)), read.en.eq(sent)]
        with m.If(sent):
            m.d.sync += [records.valid.eq(1), record.tenant.eq(sender), waits.eq(0)]
        with m.Elif(records.ready):
            m.d.sync += records.valid.eq(0)
        with m.If(~waits & ready.any()):
            m.d.sync += [sender.eq(chosen), waits.eq(1)]
        return record
