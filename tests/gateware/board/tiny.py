"""A core that takes no time to build, with the ports of `BoardCore`: a counter, and the serial line looped back."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class TinyCore(wiring.Component):
    """What the flow is tested with."""

    uart_rx: In(1, init=1)
    uart_tx: Out(1, init=1)
    heartbeat: Out(1)
    link: Out(1)
    epoch: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.divider = divider = TinyDivider()
        m.d.sync += [self.uart_tx.eq(self.uart_rx), self.epoch.eq(divider.carry)]
        m.d.comb += [self.heartbeat.eq(divider.carry), self.link.eq(~self.uart_rx)]
        return m


class TinyDivider(wiring.Component):
    """`carry` is high for half of every 256 cycles."""

    carry: Out(1)

    def elaborate(self, platform):
        m = Module()
        count = Signal(8)
        m.d.sync += count.eq(count + 1)
        m.d.comb += self.carry.eq(count[-1])
        return m
