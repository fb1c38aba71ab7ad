"""`QueueTable`: what software and the engine know of each tenant's host queue: block `queue` of the register map.

Of the sixteen words of a row software writes the first seven (places of the rings, control, tails), the engine eight
from the ninth on (heads, counts, fault). A row that is enabled begins with the engine's words cleared, so that the
write of its `control` takes up to 12 cycles; other accesses take two. It is refused while the engine is at work for the
row, which ends by itself; for eight cycles then the row stays disabled, and the engine's parts, which look again within
two, rely on that. `posted` strobes when a tail was written, and for both rings when a row was enabled.

The engine's port: `value` is the word `word` of row `tenant` of the cycle before; `store` writes `store_value` to
`store_word`. `stop` disables the row, `stop_all` every one.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..csr.bus import CsrSignature
from ..csr.regmap import WORD_ADDRESS_WIDTH

__all__ = ["CONTROL", "DROPPED", "FAULT", "HEAD", "RECEIVED", "REFUSED", "RING", "SENT", "TAIL", "QueueTable",
           "TablePort"]

#: Words of a row. Those of the receive ring follow those of the transmit ring.
RING, CONTROL, TAIL = 0, 4, 5
HEAD, SENT, RECEIVED, REFUSED, DROPPED, FAULT = 8, 10, 11, 12, 13, 14
WRITABLE = 7


class TablePort(wiring.Signature):
    """The engine's port, seen from the engine. `busy`: tenants that it is at work for. `posted`: of which a tail was
    written, those of transmit rings below those of receive rings."""

    def __init__(self, tenants: int):
        self.tenants = tenants
        super().__init__({
            "tenant": Out(6), "busy": Out(tenants), "word": Out(4), "value": In(32),
            "store": Out(1), "store_word": Out(4), "store_value": Out(32), "stop": Out(1),
            "enabled": In(tenants), "posted": In(2 * tenants),
        })

    def __eq__(self, other):
        return isinstance(other, TablePort) and self.tenants == other.tenants


class QueueTable(wiring.Component):
    """The rows of `tenants` tenants."""

    def __init__(self, tenants: int):
        self._tenants = tenants
        super().__init__({"bus": In(CsrSignature(WORD_ADDRESS_WIDTH)), "engine": In(TablePort(tenants)),
                          "stop_all": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.settings = settings = Memory(shape=unsigned(32), depth=8 * self._tenants, init=[])
        m.submodules.state = state = Memory(shape=unsigned(32), depth=8 * self._tenants, init=[])
        enabled, engine = self.engine.enabled, self.engine
        looks = [memory.read_port() for memory in (settings, state)]
        upper = Signal()
        m.d.sync += upper.eq(engine.word[3])
        m.d.comb += [look.addr.eq(Cat(engine.word[:3], engine.tenant)) for look in looks]
        m.d.comb += engine.value.eq(Mux(upper, looks[1].data, looks[0].data))
        clear, enable = Signal(), Signal()
        kept = state.write_port()
        count, row = Signal(4), self.bus.address[4:10]
        m.d.comb += [
            kept.addr.eq(Mux(engine.store, Cat(engine.store_word[:3], engine.tenant), Cat(count[:3], row))),
            kept.data.eq(Mux(engine.store, engine.store_value, 0)),
            kept.en.eq(engine.store | clear),
        ]
        self._elaborate_bus(m, settings, state, enabled, clear, enable, count)
        with m.If(enable):
            m.d.sync += enabled.bit_select(row, 1).eq(1)
        with m.If(engine.stop):
            m.d.sync += enabled.bit_select(engine.tenant, 1).eq(0)
        with m.If(self.stop_all):
            m.d.sync += enabled.eq(0)
        return m

    def _elaborate_bus(self, m, settings, state, enabled, clear, enable, count):
        word, row = self.bus.address[:4], self.bus.address[4:10]
        place = Cat(word[:3], row)
        store, looks = settings.write_port(granularity=8), [memory.read_port() for memory in (settings, state)]
        control, refused, wanted = Signal(), Signal(), Signal()
        m.d.comb += [store.addr.eq(place), store.data.eq(self.bus.w_data), *(look.addr.eq(place) for look in looks),
                     control.eq(self.bus.write & (word == CONTROL) & self.bus.w_mask[0]),
                     wanted.eq(control & self.bus.w_data[0] & ~enabled.bit_select(row, 1)),
                     refused.eq((row >= self._tenants) | (self.bus.write & (word >= WRITABLE))
                                | (wanted & self.engine.busy.bit_select(row, 1)))]
        enabling, posted = control & self.bus.w_data[0], (1 << row)[:self._tenants]
        error = Signal()
        with m.FSM():
            with m.State("idle"):
                m.d.sync += [count.eq(0), error.eq(refused)]
                with m.If(self.bus.valid):
                    m.next = "answer"
                    with m.If(self.bus.write & ~refused):
                        m.d.comb += store.en.eq(self.bus.w_mask)
                        with m.If(wanted):
                            m.next = "clear"
                        with m.Elif(control & ~self.bus.w_data[0]):
                            m.d.sync += enabled.bit_select(row, 1).eq(0)
            with m.State("clear"):
                m.d.comb += clear.eq(1)
                with m.If(~self.engine.store):
                    m.d.sync += count.eq(count + 1)
                    with m.If(count == 7):
                        m.d.comb += enable.eq(1)
                        m.next = "answer"
            with m.State("answer"):
                m.d.comb += [self.bus.ready.eq(self.bus.valid), self.bus.error.eq(error),
                             self.bus.r_data.eq(Mux(word[3], looks[1].data, looks[0].data))]
                with m.If(word == CONTROL):
                    m.d.comb += self.bus.r_data[0].eq(enabled.bit_select(row, 1))
                with m.If(self.bus.write & ~error):
                    m.d.comb += self.engine.posted.eq(Cat(Mux((word == tail) | enabling, posted, 0)
                                                          for tail in (TAIL, TAIL + 1)))
                m.next = "idle"
