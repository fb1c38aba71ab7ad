"""`TableChecker`: checks the staged table against every rule, a row a cycle.

`start` begins a check, also in the middle of one, which is then given up. `done` is high for one cycle, tenants + 3
cycles after `start`, with `result` 0, or the reason of the refusal and the `row` (255: the table as a whole).
The sums come first; then the first row that breaks a rule, with the lowest number of those that it breaks.
"""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .allocation import FULL_RATE, AllocationRow
from .guarantee import GuaranteeRow
from .table import SUM_WIDTH

__all__ = ["MIN_BURST", "WEIGHT_CAPACITY", "WHOLE_TABLE", "Result", "TableChecker"]

WEIGHT_CAPACITY = 1 << 16
MIN_BURST = 256         # the largest packet, in beats
FULL_HOST_SHARE = 256
WHOLE_TABLE = 255       # `row` when no single row is at fault


class Result(enum.Enum, shape=unsigned(4)):
    """How a command ended (`rm.status.result` of the register map)."""

    OK = 0
    WRONG_STATE = 1
    STALE_EPOCH = 2
    STALE_TOKEN = 3
    BUSY_DRAINING = 4
    WEIGHTS = 5
    PAGES = 6
    GUARANTEE = 7
    SLOT_TWICE = 8
    BURST = 9
    UNKNOWN_BIT = 10
    RATE = 11
    UNKNOWN_COMMAND = 12
    HOST_SHARE = 13
    UNKNOWN_TENANT = 14


class TableChecker(wiring.Component):
    """Scan over the staged rows and the guarantees.

    tenant: row asked for; `staged` and `guarantee` are its rows, one cycle later.
    sum_weight, sum_pages: sums of the staged table, which does not change during a check.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "start": In(1),
            "tenant": Out(range(config.tenants)),
            "staged": In(AllocationRow),
            "guarantee": In(GuaranteeRow),
            "sum_weight": In(SUM_WIDTH),
            "sum_pages": In(SUM_WIDTH),
            "done": Out(1),
            "result": Out(Result),
            "row": Out(8),
        })

    def elaborate(self, platform):
        m = Module()
        last = self._config.tenants - 1
        # A row passes three steps, a cycle each: it is asked for, compared, and judged.
        asking, comparing, judging = (Signal(name=name) for name in ("asking", "comparing", "judging"))
        compared_tenant, judged_tenant = (
            Signal.like(self.tenant, name=name) for name in ("compared_tenant", "judged_tenant"))
        faults = self._elaborate_rules(m, comparing)
        m.d.sync += [
            comparing.eq(asking), compared_tenant.eq(self.tenant),
            judging.eq(comparing), judged_tenant.eq(compared_tenant),
            self.done.eq(judging & (judged_tenant == last)),
        ]
        with m.If(asking):
            m.d.sync += [self.tenant.eq(self.tenant + 1), asking.eq(self.tenant != last)]
        with m.If(judging & (self.result == Result.OK)):
            for reason, broken in reversed(faults.items()):
                with m.If(broken):
                    m.d.sync += [self.result.eq(reason), self.row.eq(judged_tenant)]
        with m.If(self.start):
            m.d.sync += [asking.eq(1), comparing.eq(0), judging.eq(0), self.done.eq(0), self.tenant.eq(0)]
            self._elaborate_sums(m)
        return m

    def _elaborate_rules(self, m, comparing):
        """Flags of the rules that a row breaks, in the cycle in which it is judged, in order of precedence."""
        config, staged = self._config, self.staged
        owned = Signal(16)
        with m.If(comparing):
            m.d.sync += owned.eq(owned | staged.slots)
        with m.If(self.start):
            m.d.sync += owned.eq(0)
        rules = {
            Result.GUARANTEE:
                (staged.weight < self.guarantee.weight) | (staged.pages < self.guarantee.pages),
            Result.SLOT_TWICE: (owned & staged.slots).any(),
            Result.BURST: staged.burst < MIN_BURST,
            Result.UNKNOWN_BIT: Cat(staged.ports[config.ports:], staged.slots[config.slots:]).any(),
            Result.RATE: (staged.rate > FULL_RATE) | ((staged.rate == 0) & (staged.weight != 0)),
            Result.HOST_SHARE: staged.host_share > FULL_HOST_SHARE,
        }
        flags = {reason: Signal(name=f"broken_{reason.name.lower()}") for reason in rules}
        m.d.sync += [flags[reason].eq(broken) for reason, broken in rules.items()]
        return flags

    def _elaborate_sums(self, m):
        """The verdict that the check begins with; a fault of a row does not replace one of the table."""
        with m.If(self.sum_weight > WEIGHT_CAPACITY):
            m.d.sync += [self.result.eq(Result.WEIGHTS), self.row.eq(WHOLE_TABLE)]
        with m.Elif(self.sum_pages > self._config.pages):
            m.d.sync += [self.result.eq(Result.PAGES), self.row.eq(WHOLE_TABLE)]
        with m.Else():
            m.d.sync += [self.result.eq(Result.OK), self.row.eq(0)]
