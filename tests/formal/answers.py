"""Contract of what collects the engines' answers: each of a tenant's requests has one response, its own, in order.

Two tenants, one of them watched. A request of it is followed: any number, modulo 64; one of the same number comes when
it has left. Its ticket, its first eight bytes and its answer are kept by the contract as they came in, and must be what
its response says. Responses are counted, so the followed one is that of its number, and there is no other.

Of who answers the watched tenant it is assumed that an answer is one to an open request that has none yet, and that
two sources do not offer the same one: see `slots`. The other tenant may be answered at will.
"""

from amaranth import *
from amaranth.lib import data

from gateware.engine.collector import Ticket
from gateware.engine.response import RESPONSE_BYTES, Record
from gateware.engine.shard import ShardId, Status, outstanding_limit, tag_shape
from gateware.stream.packet import FlowClass
from tests.formal.prover import AnyConst, Assume, Claims, free_inputs, internals

#: Parts of the invariant: each is proven while the others are assumed.
PARTS = ("port", "books", "places", "record")
COPIED = ("destination", "epoch", "flow_hash")   # of the request's ticket, in the response's header
#: What an answer says.
RESULT = data.StructLayout({"result": 32, "status": Status, "shard": ShardId})


class CollectorContract(Elaboratable):
    """`dut` has the ports of `ResponseCollector(config, sources)`; `tenant` is the one that is watched.

    part: of the invariant. None: only what the ports say, for bounded checks.
    """

    def __init__(self, dut, config, tenant, part=None):
        self.dut, self.config, self.tenant, self.part = dut, config, tenant, part
        self.limit = outstanding_limit(config)
        self.number = tag_shape(config)

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut, inside = internals(self.dut)
        free_inputs(m, self.dut)
        claim = Claims(self.part or "port", assume=self.part is not None)
        self._follow(m)
        self._answer(m)
        self._respond(m, claim)
        if self.part is not None:
            self._invariant(m, inside, claim)
        claim.finish(m)
        return m

    def _follow(self, m):
        """Requests of the tenant, and what is known of the followed one."""
        dut, number = self.dut, self.number
        self.issued, self.followed = Signal(number), Signal(number)
        self.due = Signal(self.limit)   # places whose request has no answer yet
        self.ticket, self.word, self.has_word = Signal(Ticket), Signal(64), Signal(2)
        self.mine = dut.issue & (dut.tenant == self.tenant)
        self.begins = self.mine & (self.issued == self.followed)
        m.d.comb += [self.followed.eq(AnyConst(number)), Assume(~dut.issue | ~dut.full.bit_select(dut.tenant, 1))]
        with m.If(self.mine):
            m.d.sync += [self.issued.eq(self.issued + 1), self.due.bit_select(self.issued[:-1], 1).eq(1)]
        with m.If(self.begins):
            m.d.sync += [self.ticket.eq(dut.ticket), self.has_word.eq(0)]
        # The first bytes of a request come while it is on its way to an engine.
        place = dut.word_place
        here = dut.word_enable.any() & (place.tenant == self.tenant)
        m.d.comb += Assume(~here | self._is_due(place.tag))
        for half in range(2):
            with m.If(dut.word_enable[half] & here & (place.tag == self.followed)):
                m.d.sync += [self.word.word_select(half, 32).eq(dut.word.word_select(half, 32)),
                             self.has_word[half].eq(1)]

    def _is_due(self, tag):
        """The request is open, and has no answer."""
        since = (self.issued - tag - 1)[:len(self.issued)]   # requests issued behind it
        return self.due.bit_select(tag[:-1], 1) & (since < self.limit)

    def _answer(self, m):
        """Answers to the tenant are to what is due; the followed one's is kept."""
        self.answered, self.result = Signal(), Signal(RESULT)
        with m.If(self.begins):
            m.d.sync += self.answered.eq(0)
        sources = self.dut.answers
        for index, source in enumerate(sources):
            answer = source.payload
            here = source.valid & (answer.tenant == self.tenant)
            m.d.comb += [Assume(answer.tenant < self.config.tenants), Assume(~here | self._is_due(answer.tag))]
            for other in sources[:index]:
                m.d.comb += Assume(~here | ~other.valid | (other.payload.tenant != answer.tenant)
                                   | (other.payload.tag != answer.tag))
            with m.If(here & source.ready):
                m.d.sync += self.due.bit_select(answer.tag[:-1], 1).eq(0)
                with m.If(answer.tag == self.followed):
                    m.d.sync += [self.answered.eq(1), *(self.result[name].eq(answer[name]) for name in RESULT.members)]

    def _respond(self, m, claim):
        """What leaves for the tenant is the next request's response; the followed one's says what was kept."""
        header, beats = self.dut.responses.header, self.dut.responses.data
        self.left, self.sending = Signal(self.number), Signal()   # headers that left; of the packet whose beats come
        beat, mine = Signal(range(RESPONSE_BYTES // self.config.beat_bytes + 1)), Signal()
        m.d.comb += mine.eq(header.payload.tenant == self.tenant)
        with m.If(header.valid & header.ready):
            m.d.sync += self.sending.eq(1)
            with m.If(mine):
                m.d.sync += self.left.eq(self.left + 1)
        with m.If(beats.valid & beats.ready):
            m.d.sync += beat.eq(beat + 1)
            with m.If(beats.payload.last):
                m.d.sync += [beat.eq(0), self.sending.eq(0)]
        here = mine & (self.followed == self.left - self.sending)
        payload = Signal(8 * RESPONSE_BYTES)
        m.d.comb += payload.eq(Cat(self.word, self.result))
        words = [payload.word_select(beat, self.config.data_width).word_select(half, 32)
                 for half in range(self.config.data_width // 32)]
        said = [beats.payload.data.word_select(half, 32) for half in range(len(words))]
        known = [Mux(beat * len(words) + half < 2, self.has_word.bit_select(beat * len(words) + half, 1), 1)
                 for half in range(len(words))]
        self.beat = beat
        m.d.comb += [
            claim("port", ~header.valid | ~mine | (self.issued != self.left)),
            claim("port", ~header.valid | (header.payload.flow_class == FlowClass.RESPONSE)),
            claim("port", ~header.valid | ~here | self.answered),
            *(claim("port", ~header.valid | ~here | (header.payload[name] == self.ticket[name]))
              for name in COPIED),
            *(claim("port", ~beats.valid | ~here | ~know | (word == expected))
              for know, word, expected in zip(known, said, words, strict=True)),
        ]

    def _invariant(self, m, inside, claim):
        """What is held of the tenant's requests, and of the followed one."""
        tenant, limit, number = self.tenant, self.limit, self.number
        head, opened = Signal(number), Signal(number)    # the next to leave; how many are open
        records, record = inside["records__valid"], Record(inside["records__payload"])
        header_sent, waits, sender = inside["writer.header_sent"], inside["waits"], inside["sender"]
        ours = record.tenant == tenant
        m.d.comb += [head.eq(inside.word(m, "heads", tenant)), opened.eq(self.issued - head)]
        ready = inside["ready"][tenant]
        m.d.comb += [
            claim("books", inside.word(m, "tags", tenant) == self.issued),
            claim("books", inside[f"open_{tenant}"] == opened),
            claim("books", opened <= limit),
            claim("books", ~ready | ((opened != 0) & ~self.due.bit_select(head[:-1], 1))),
            claim("books", ~waits | (sender != tenant) | ready),
            claim("record", self.left == (head - (records & ours & ~header_sent))[:len(head)]),
            claim("record", ~header_sent | records),
            claim("record", self.sending == header_sent),
            claim("record", inside["writer.beat"] == self.beat),
            claim("record", self.beat < RESPONSE_BYTES // self.config.beat_bytes),
        ]
        # A place belongs to the request that is the next to have it, or has it; its turn tells whether it is answered.
        for place in range(limit):
            ahead, of = Signal(range(limit), name="ahead"), Signal(number, name="of")
            due, turn = self.due[place], inside.word(m, "turns", (tenant * limit) | place)
            m.d.comb += [
                ahead.eq(place - head[:-1]), of.eq(head + ahead),
                claim("places", (turn == of[-1]) == ((ahead < opened) & ~due)),
                claim("places", ~due | (ahead < opened)),
            ]
        address = Cat(self.followed[:-1], C(tenant, 1))
        ticket, word, result = (inside.word(m, name, address) for name in ("tickets", "words", "results"))
        is_open = Signal()
        m.d.comb += is_open.eq((self.followed - head)[:len(head)] < opened)
        leaving = records & ours & (self.followed == (head - 1)[:len(head)])
        due = self.due.bit_select(self.followed[:-1], 1)
        m.d.comb += [
            claim("record", ~is_open | (Value.cast(ticket) == Value.cast(self.ticket))),
            claim("record", ~is_open | (self.answered == ~due)),
            *(claim("record", ~is_open | ~self.has_word[half]
                    | (word.word_select(half, 32) == self.word.word_select(half, 32))) for half in range(2)),
            claim("record", ~is_open | ~self.answered | (Value.cast(result) == Value.cast(self.result))),
            claim("record", ~leaving | self.answered),
            *(claim("record", ~leaving | (record[name] == self.ticket[name])) for name in COPIED),
            *(claim("record", ~leaving | ~self.has_word[half]
                    | (record.request_word.word_select(half, 32) == self.word.word_select(half, 32)))
              for half in range(2)),
            *(claim("record", ~leaving | (record[name] == self.result[name])) for name in RESULT.members),
        ]
