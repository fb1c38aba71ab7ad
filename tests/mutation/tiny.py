"""A component with one output that its tests check, one that they do not, and logic that changes nothing."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tests.mutation.blocks import Target


class Tiny(wiring.Component):
    """total: a + b, one cycle later. parity: of a and b, likewise. same: a, with redundant logic."""

    def __init__(self, width: int = 4):
        self._width = width
        super().__init__({"a": In(width), "b": In(width), "total": Out(width), "parity": Out(1), "same": Out(width)})

    def elaborate(self, platform):
        m = Module()
        total = Signal(self._width)  # checked
        parity = Signal()  # not checked
        m.d.sync += total.eq(self.a + self.b)  # checked
        m.d.sync += parity.eq((self.a ^ self.b).xor())  # not checked
        hidden = ~self.b & self.a  # redundant
        m.d.comb += self.same.eq(self.a | hidden)  # checked too
        m.d.comb += [self.total.eq(total), self.parity.eq(parity)]
        return m


def _tiny() -> Tiny:
    return Tiny()


TINY = Target("tiny", _tiny, ("tests/mutation/tiny.py",), ("tests/mutation/check_tiny.py",))


class Twins(wiring.Component):
    """Two of them, of `a` and `b` and of `b` and `c`, added: `first` and `second`."""

    a: In(4)
    b: In(4)
    c: In(4)
    total: Out(5)

    def elaborate(self, platform):
        m = Module()
        m.submodules.first = first = Tiny()
        m.submodules.second = second = Tiny()
        m.d.comb += [first.a.eq(self.a), first.b.eq(self.b), second.a.eq(self.b), second.b.eq(self.c)]
        m.d.comb += self.total.eq(first.total + second.total)
        return m
