"""Aggregation: how two values of a figure are joined: of two ports, or of a slice and the total so far."""

from amaranth import *
from amaranth.lib import enum

__all__ = ["Rule", "combine"]


class Rule(enum.Enum):
    """How two values of one figure are joined."""

    SUM = 0       # modulo 2**32
    SATURATE = 1  # the sum, or 2**40 - 1 if it is more
    MAXIMUM = 2

    @property
    def width(self) -> int:
        """Bits of a figure that is joined so."""
        return 40 if self is Rule.SATURATE else 32


def combine(m, rule, first, second, name):
    """Signal with the two values `first` and `second` of `rule.width` bits joined by `rule`."""
    joined = Signal(rule.width, name=name)
    if rule is Rule.SUM:
        m.d.comb += joined.eq(first + second)
    elif rule is Rule.SATURATE:
        total = Signal(rule.width + 1, name=f"{name}_total")
        m.d.comb += [total.eq(first + second), joined.eq(Mux(total[-1], (1 << rule.width) - 1, total[:-1]))]
    else:
        m.d.comb += joined.eq(Mux(first > second, first, second))
    return joined
