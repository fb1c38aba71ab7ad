"""Engine accounts: what each tenant is charged for engine time, as the fabric's scheduler is told.

Contract: `feedback` charges amount, in the long run, to the measured cost of the requests. How long a request takes is
known only when it is over, and several of one tenant could be granted until then. So a tenant is charged twice for
each: when it is given to a slot, the `price` of the tenant (what its last finished request cost); when it is finished,
the difference. A price that was too high is a balance that pays the next charges. A refused request, which no engine
works on, costs its beats.

`assigned` is charged two cycles later; finished requests queue behind that, `QUEUE` a slot. `settled[s]` is high while
none of slot *s* waits: a slot that takes new requests only then cannot overrun its queue.
"""

from amaranth import *
from amaranth.lib import data, fifo, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, DeviceConfig
from .shard import COST_BITS, outstanding_limit
from .slot import Finished

__all__ = ["EngineAccounts"]

QUEUE = 8


class EngineAccounts(wiring.Component):
    """Prices, balances, and the queue of charges.

    assigned: `tenant` gives a request of `beats` to a slot, or (`refused`) to none; `price` is that of `tenant`, in the
    same cycle. finished, bills: as in `EngineSlot`. charged, charge_tenant, cost: see `EngineFeedbackSignature`.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "assigned": In(1),
            "tenant": In(range(config.tenants)),
            "refused": In(1),
            "beats": In(range(MAX_PACKET_BEATS + 1)),
            "price": Out(COST_BITS),
            "finished": In(config.slots),
            "bills": In(Finished).array(config.slots),
            "settled": Out(config.slots),
            "charged": Out(1),
            "charge_tenant": Out(range(config.tenants)),
            "cost": Out(COST_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        event = data.StructLayout({
            "tenant": range(config.tenants), "amount": signed(COST_BITS + 1), "cost": COST_BITS, "final": 1})
        arrival, next_event = Signal(event), Signal(event)
        arrived, due = Signal(), Signal()
        m.d.sync += [
            arrived.eq(self.assigned),
            arrival.tenant.eq(self.tenant),
            arrival.amount.eq(Mux(self.refused, self.beats, self.price)),
        ]
        waiting = [self._queue_bills(m, index) for index in range(config.slots)]
        with m.If(arrived):
            m.d.comb += [next_event.eq(arrival), due.eq(1)]
        for bills in waiting:
            bill = data.View(Finished, bills.r_data)
            with m.Elif(bills.r_rdy):
                m.d.comb += [
                    bills.r_en.eq(1),
                    due.eq(1),
                    next_event.tenant.eq(bill.tenant),
                    next_event.amount.eq(bill.cost - bill.price),
                    next_event.cost.eq(bill.cost),
                    next_event.final.eq(1),
                ]
        entry, valid = Signal(event), Signal()
        m.d.sync += [entry.eq(next_event), valid.eq(due)]
        self._charge(m, entry, valid)
        return m

    def _queue_bills(self, m, index):
        """The queue of one slot's finished requests."""
        m.submodules[f"bills_{index}"] = bills = fifo.SyncFIFO(width=Shape.cast(Finished).width, depth=QUEUE)
        m.d.comb += [
            bills.w_data.eq(self.bills[index]),
            bills.w_en.eq(self.finished[index]),
            self.settled[index].eq(~bills.r_rdy),
        ]
        return bills

    def _charge(self, m, entry, valid):
        """Charges what the balance does not cover; remembers the last cost as the next price."""
        config = self._config
        shape = signed(COST_BITS + outstanding_limit(config).bit_length() + 1)
        largest = (1 << COST_BITS) - 1
        m.submodules.prices = prices = memory.Memory(shape=COST_BITS, depth=config.tenants, init=[])
        m.submodules.balances = balances = memory.Memory(shape=shape, depth=config.tenants, init=[])
        price, new_price = prices.read_port(domain="comb"), prices.write_port()
        balance, new_balance = balances.read_port(domain="comb"), balances.write_port()
        owed = Signal(shape)
        cost = Signal(COST_BITS)
        m.d.comb += [
            price.addr.eq(self.tenant),
            self.price.eq(price.data),
            new_price.addr.eq(entry.tenant),
            new_price.data.eq(entry.cost),
            new_price.en.eq(valid & entry.final),
            balance.addr.eq(entry.tenant),
            owed.eq(entry.amount - balance.data),
            cost.eq(Mux(owed < 0, 0, Mux(owed > largest, largest, owed))),
            new_balance.addr.eq(entry.tenant),
            new_balance.data.eq(cost - owed),
            new_balance.en.eq(valid),
        ]
        m.d.sync += [
            self.charged.eq(valid),
            self.charge_tenant.eq(entry.tenant),
            self.cost.eq(cost),
        ]
