"""The resource manager with two tenants: by induction, with any accesses; wrong ones over one transaction."""

import pytest
from amaranth import *
from amaranth.lib import wiring

from gateware.config import DeviceConfig
from gateware.manager import checker, standing
from gateware.manager.manager import ResourceManager
from tests.formal.allocation import CHECK, ManagerContract
from tests.formal.manager_invariant import PARTS
from tests.formal.prover import check, pass_through, prove

pytestmark = pytest.mark.slow

SMALL = DeviceConfig(ports=2, data_width=32, tenants=2, slots=1, pages=32)
ONE_RULE = DeviceConfig(ports=2, data_width=32, tenants=2, slots=1, pages=32, rules=1)
ONE = ("staging",)
ONE_WRITE, TWO_WRITES = 33, 42  # cycles in which begin, writes, commit and rollback end


class WrongManager(wiring.Component):
    """A resource manager that the rest of the device sees through one of four faults.

    `late`: the epoch changes a cycle after the bank. `torn`: a row of the table in force is changed. `silent`: the
    change is not told. `miscounted`: the sum of the pages is that of another table.
    """

    def __init__(self, config, fault):
        self.inner, self.fault = ResourceManager(config), fault
        super().__init__(self.inner.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = self.inner
        pass_through(m, self, inner)
        bus = self.allocation
        if self.fault == "late":
            epoch = Signal(8)
            m.d.sync += epoch.eq(inner.allocation.epoch)
            m.d.comb += bus.epoch.eq(epoch)
        elif self.fault == "torn":
            with m.If(inner.allocation.write & (inner.allocation.row.pages == 5)):
                m.d.comb += bus.bank.eq(inner.allocation.active_bank)
        elif self.fault == "silent":
            m.d.comb += self.changed.eq(0)
        else:
            pages = Signal.like(bus.sum_pages)
            m.d.sync += pages.eq(inner.allocation.sum_pages)
            m.d.comb += bus.sum_pages.eq(pages)
        return m


@pytest.mark.slow
def test_table_in_force_satisfies_the_rules_and_changes_as_a_whole(tmp_path):
    verdict = check(ManagerContract(ResourceManager(SMALL), SMALL, writes=ONE), tmp_path, ONE_WRITE)
    assert verdict.holds, verdict.log


@pytest.mark.long_proof
def test_table_in_force_satisfies_the_rules_after_two_staged_words(tmp_path):
    verdict = check(ManagerContract(ResourceManager(SMALL), SMALL, writes=2 * ONE), tmp_path, TWO_WRITES)
    assert verdict.holds, verdict.log


@pytest.mark.long_proof
@pytest.mark.parametrize("part", PARTS)
def test_table_in_force_is_legal_and_changes_as_a_whole_for_ever(tmp_path, part):
    contract = ManagerContract(ResourceManager(ONE_RULE), ONE_RULE, invariant=True, part=part)
    verdict = prove(contract, tmp_path, depth=1)
    assert verdict.holds, verdict.log


def long(*values):
    return pytest.param(*values, marks=pytest.mark.long_proof)


@pytest.mark.parametrize("fault", ["torn", long("late"), long("silent"), long("miscounted")])
def test_manager_that_changes_the_table_piecemeal_is_refuted(tmp_path, fault):
    verdict = check(ManagerContract(WrongManager(SMALL, fault), SMALL, writes=ONE), tmp_path, ONE_WRITE)
    assert verdict.refuted, verdict.log


@pytest.mark.long_proof
@pytest.mark.parametrize(("rule", "limit"), [("WEIGHT_CAPACITY", 1 << 17), ("MIN_BURST", 0),
                                             ("FULL_HOST_SHARE", 511), ("FULL_RATE", (1 << 17) - 1)])
def test_manager_that_does_not_check_a_rule_is_refuted(tmp_path, monkeypatch, rule, limit):
    monkeypatch.setattr(checker, rule, limit)
    verdict = check(ManagerContract(ResourceManager(SMALL), SMALL, writes=ONE), tmp_path, ONE_WRITE)
    assert verdict.refuted, verdict.log


def lenient(monkeypatch):
    """Nobody looks at the guaranteed minimum."""
    def faults(config, row, guarantee):
        rules = row_faults(config, row, guarantee)
        return {reason: broken for reason, broken in rules.items() if reason != checker.Result.GUARANTEE}

    row_faults = checker.row_faults
    for module in (checker, standing):
        monkeypatch.setattr(module, "row_faults", faults)


def tampered(monkeypatch, method, statement):
    """A manager with a connection changed, by what `statement(arguments of its method)` assigns."""
    original = getattr(ResourceManager, method)

    def connect(self, m, *parts):
        original(self, m, *parts)
        m.d.comb += statement(*parts)

    monkeypatch.setattr(ResourceManager, method, connect)


def forgetful(monkeypatch):
    """A table that was checked is not checked again after a guarantee was written."""
    tampered(monkeypatch, "_elaborate_check",
             lambda table, guarantee, checker, standing, transaction, *_: transaction.guarantee_changed.eq(0))


def hasty(monkeypatch):
    """The verdict on the staged rows stands, whatever guarantee is written."""
    tampered(monkeypatch, "_elaborate_standing",
             lambda table, guarantee, standing, transaction: standing.guarantee_changed.eq(0))


def careless(monkeypatch):
    """The verdict on the staged rows does not count who owns a slot."""
    tampered(monkeypatch, "_elaborate_standing",
             lambda table, guarantee, standing, transaction: standing.row.slots.eq(0))


@pytest.mark.long_proof
@pytest.mark.parametrize(("wrong", "steps"), [
    (lenient, ("guarantee",)), (forgetful, (CHECK, "guarantee")), (hasty, ("guarantee",)), (careless, ONE)])
def test_manager_that_breaks_a_guarantee_is_refuted(tmp_path, monkeypatch, wrong, steps):
    wrong(monkeypatch)
    contract = ManagerContract(ResourceManager(ONE_RULE), ONE_RULE, writes=steps, invariant=True, part="change")
    verdict = check(contract, tmp_path, ONE_WRITE)
    assert verdict.refuted, verdict.log
