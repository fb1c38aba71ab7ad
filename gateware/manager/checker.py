"""`TableChecker`: checks the staged table against every rule; one that stands needs no scan.

`start` begins a check, also in the middle of one, which is then given up. `done` is high for one cycle, with `result`
0, or the reason of the refusal and the `row` (255: the table as a whole). The sums come first; then, if `legal` does
not say that all rows stand, a scan, a row a cycle, for the first row that breaks a rule, with the lowest number
of those that it breaks. `done` comes 3 cycles after `start`, tenants + 6 after a scan.
"""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .allocation import FULL_RATE, AllocationRow
from .guarantee import GuaranteeRow
from .table import SUM_WIDTH

__all__ = ["MIN_BURST", "WEIGHT_CAPACITY", "WHOLE_TABLE", "Result", "TableChecker", "row_faults"]

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


def row_faults(config: DeviceConfig, row, guarantee) -> dict[Result, Value]:
    """Rules that `row` breaks by itself: reason -> whether it does."""
    return {
        Result.GUARANTEE: (row.weight < guarantee.weight) | (row.pages < guarantee.pages),
        Result.BURST: row.burst < MIN_BURST,
        Result.UNKNOWN_BIT: Cat(row.ports[config.ports:], row.slots[config.slots:]).any(),
        Result.RATE: (row.rate > FULL_RATE) | ((row.rate == 0) & (row.weight != 0)),
        Result.HOST_SHARE: row.host_share > FULL_HOST_SHARE,
    }


class TableChecker(wiring.Component):
    """Verdict of the sums and of the rows, the latter by a scan over them and the guarantees if need be.

    legal: no row breaks a rule and no slot is owned twice; low does not say that one does.
    tenant: row asked for; `staged` and `guarantee` are its rows, one cycle later.
    sum_weight, sum_pages: sums of the staged table, one cycle after `start`; it does not change during a check.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "start": In(1),
            "legal": In(1),
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
        # A row passes four steps, a cycle each: it is asked for, fetched, compared, and judged.
        summing, deciding, asking, fetching, comparing, judging, judged = (Signal(name=name) for name in (
            "summing", "deciding", "asking", "fetching", "comparing", "judging", "judged"))
        fetched_tenant, compared_tenant, judged_tenant = (
            Signal.like(self.tenant, name=f"{name}_tenant") for name in ("fetched", "compared", "judged"))
        faults = self._elaborate_rules(m, summing, comparing)
        # A check that is given up may end in the cycle after `start`, which is none of its verdicts.
        m.d.comb += self.done.eq(judged & ~summing)
        m.d.sync += [
            summing.eq(self.start), deciding.eq(summing & ~self.start),
            fetching.eq(asking), fetched_tenant.eq(self.tenant),
            comparing.eq(fetching), compared_tenant.eq(fetched_tenant),
            judging.eq(comparing), judged_tenant.eq(compared_tenant),
            judged.eq(judging & (judged_tenant == last)),
        ]
        is_over = self._elaborate_sums(m, deciding)
        with m.If(deciding):
            m.d.sync += [self.tenant.eq(0), asking.eq(~is_over), judged.eq(is_over)]
        with m.Elif(asking):
            m.d.sync += [self.tenant.eq(self.tenant + 1), asking.eq(self.tenant != last)]
        with m.If(judging & (self.result == Result.OK)):
            for reason, broken in reversed(faults.items()):
                with m.If(broken):
                    m.d.sync += [self.result.eq(reason), self.row.eq(judged_tenant)]
        with m.If(summing):
            m.d.sync += [asking.eq(0), fetching.eq(0), comparing.eq(0), judging.eq(0), judged.eq(0)]
        return m

    def _elaborate_rules(self, m, summing, comparing):
        """Flags of the rules that a row breaks, in the cycle in which it is judged, in order of precedence."""
        staged = Signal.like(self.staged, name="compared_row")
        guarantee = Signal.like(self.guarantee, name="compared_guarantee")
        m.d.sync += [staged.eq(self.staged), guarantee.eq(self.guarantee)]
        owned = Signal(16)
        with m.If(comparing):
            m.d.sync += owned.eq(owned | staged.slots)
        with m.If(summing):
            m.d.sync += owned.eq(0)
        rules = row_faults(self._config, staged, guarantee) | {
            Result.SLOT_TWICE: (owned & staged.slots).any()}
        flags = {reason: Signal(name=f"broken_{reason.name.lower()}")
                 for reason in sorted(rules, key=lambda reason: reason.value)}
        m.d.sync += [flag.eq(rules[reason]) for reason, flag in flags.items()]
        return flags

    def _elaborate_sums(self, m, deciding):
        """The verdict that the check begins with; a fault of a row does not replace one of the table.

        What it depends on is compared in the cycle before. Returns whether it is the last word."""
        is_heavy, is_large, is_legal = (Signal(name=name) for name in ("is_heavy", "is_large", "is_legal"))
        m.d.sync += [
            is_heavy.eq(self.sum_weight > WEIGHT_CAPACITY),
            is_large.eq(self.sum_pages > self._config.pages),
            is_legal.eq(self.legal),
        ]
        with m.If(deciding & is_heavy):
            m.d.sync += [self.result.eq(Result.WEIGHTS), self.row.eq(WHOLE_TABLE)]
        with m.Elif(deciding & is_large):
            m.d.sync += [self.result.eq(Result.PAGES), self.row.eq(WHOLE_TABLE)]
        with m.Elif(deciding):
            m.d.sync += [self.result.eq(Result.OK), self.row.eq(0)]
        return is_heavy | is_large | is_legal
