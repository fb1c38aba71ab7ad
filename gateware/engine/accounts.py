"""Engine accounts: what each tenant is charged for engine time, as `EngineRounds` is told.

Contract: the `amount`s of a tenant add up to the measured cost of its requests. How long a request takes is known
only when it is over, and several of one tenant could be granted until then. So a tenant is charged twice for each: when
it is given to a slot, the `price` of the tenant (what its last finished request cost); when it is finished, the
difference, which is negative if the price was too high. A refused request, which no engine works on, costs nothing.

`assigned` is charged two cycles later; finished requests queue behind that, `QUEUE` a slot. `settled[s]` is high while
none of slot *s* waits: a slot that takes new requests only then cannot overrun its queue.
"""

from amaranth import *
from amaranth.lib import data, fifo, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .shard import COST_BITS
from .slot import Finished

__all__ = ["AMOUNT", "EngineAccounts"]

QUEUE = 8

#: Shape of a charge in cycles of engine time.
AMOUNT = signed(COST_BITS + 1)


class EngineAccounts(wiring.Component):
    """Prices, and the queue of charges.

    assigned: `tenant` gives a request to a slot, or (`refused`) to none; `price` is that of `tenant`, in the same
    cycle. finished, bills: as in `EngineSlot`. charged: `charge_tenant` owes `amount` more.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "assigned": In(1),
            "tenant": In(range(config.tenants)),
            "refused": In(1),
            "price": Out(COST_BITS),
            "finished": In(config.slots),
            "bills": In(Finished).array(config.slots),
            "settled": Out(config.slots),
            "charged": Out(1),
            "charge_tenant": Out(range(config.tenants)),
            "amount": Out(AMOUNT),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.prices = prices = memory.Memory(shape=COST_BITS, depth=config.tenants, init=[])
        price, new_price = prices.read_port(domain="comb"), prices.write_port()
        arrival = Signal(data.StructLayout({"tenant": range(config.tenants), "amount": COST_BITS}))
        arrived = Signal()
        m.d.comb += [price.addr.eq(self.tenant), self.price.eq(price.data)]
        m.d.sync += [
            arrived.eq(self.assigned & ~self.refused),
            arrival.tenant.eq(self.tenant),
            arrival.amount.eq(self.price),
            self.charged.eq(0),
        ]
        waiting = [self._queue_bills(m, index) for index in range(config.slots)]
        with m.If(arrived):
            m.d.sync += [self.charged.eq(1), self.charge_tenant.eq(arrival.tenant), self.amount.eq(arrival.amount)]
        for bills in waiting:
            bill = data.View(Finished, bills.r_data)
            with m.Elif(bills.r_rdy):
                m.d.comb += [
                    bills.r_en.eq(1),
                    new_price.en.eq(1),
                    new_price.addr.eq(bill.tenant),
                    new_price.data.eq(bill.cost),
                ]
                m.d.sync += [
                    self.charged.eq(1),
                    self.charge_tenant.eq(bill.tenant),
                    self.amount.eq(bill.cost - bill.price),
                ]
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
