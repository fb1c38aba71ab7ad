"""Reflex rules from the host's side, on a modelled device: installed, read back, and their commits recognised."""

from __future__ import annotations

import logging

import pytest

from gateware.analyzer.figures import FigureId
from gateware.manager.rules import Comparison as HardwareComparison
from offload_manager.allocation import FIELDS, Row
from offload_manager.api import Decision, Outcome
from offload_manager.driver import Phase
from offload_manager.loop import ControlLoop
from offload_manager.reflex import RULES_TAG, Comparison, Figure, ReflexRules, Rule, rules_of
from offload_manager.store import MemoryStore
from tests.gateware.manager.rule_model import RULES_TAG as MODEL_TAG
from tests.offload_manager.modelled import ModelTransport, modelled_device, transport_of
from tests.offload_manager.test_loop import make, steps
from tests.offload_manager.test_reconcile import loop_on

RULE = Rule(Figure.LATENCY_MAX, tenant=1, threshold=20_000, target=2, row=Row(weight=77, ports=1), hysteresis=5_000,
            hold=2, interval=9)


def poke(transport: ModelTransport, path: str, value: int) -> None:
    """What the device would say."""
    transport.memory[transport.map.register(path).address] = value


def install(transport: ModelTransport, number: int, rule: Rule = RULE) -> ReflexRules:
    """A device of 16 rules with one installed."""
    poke(transport, "rules.count", 16)
    rules = ReflexRules(modelled_device(transport=transport))
    rules.install(number, rule)
    return rules


def fire(transport: ModelTransport, number: int, rule: Rule = RULE) -> None:
    """The device carries the rule out by itself."""
    model = transport.model
    row = {name: getattr(rule.row, name) for name in FIELDS}
    result, where = model.commit_rules([(rule.target, row)], RULES_TAG | 1 << number,
                                       transport.memory.get(transport.map.register("rules.confirm_within").address, 0))
    poke(transport, "rules.pending", 1 << number)
    poke(transport, f"rule[{number}].firings", 1)
    poke(transport, f"rule[{number}].fired_at", model.cycle)
    poke(transport, f"rule[{number}].outcome", model.epoch | result << 8 | where << 16)


def test_figures_and_comparisons_are_those_of_the_gateware() -> None:
    assert {entry.name: entry.value for entry in Figure} == {entry.name: entry.value for entry in FigureId}
    assert {e.name: e.value for e in Comparison} == {e.name: e.value for e in HardwareComparison}
    assert RULES_TAG == MODEL_TAG


def test_installed_rule_reads_back_and_can_be_removed() -> None:
    transport = ModelTransport()
    rules = install(transport, 3)
    assert rules.installed(3) == RULE
    assert rules.installed(4) is None
    rules.remove(3)
    assert rules.installed(3) is None


def test_rule_is_disabled_before_its_row_is_touched_and_enabled_last() -> None:
    transport = ModelTransport()
    rules = install(transport, 3)
    transport.exchanges.clear()
    rules.install(3, RULE)
    watch = transport.map.register("rule[3].watch").address
    [pairs] = [operation.pairs for operations in transport.exchanges for operation in operations
               if hasattr(operation, "pairs")]
    places = [index for index, (address, _) in enumerate(pairs) if address == watch]
    assert places == [0, len(pairs) - 1]
    assert pairs[0] == (watch, 0)


def test_number_beyond_the_rules_of_the_device_is_refused() -> None:
    transport = ModelTransport()
    with pytest.raises(ValueError, match=r"number must be in 0\.\.15, not 16"):
        install(transport, 16)


def test_firings_say_what_happened_until_they_are_acknowledged() -> None:
    transport = ModelTransport()
    rules = install(transport, 3)
    assert rules.firings() == []
    poke(transport, "rules.pending", 1 << 3 | 1 << 5)
    poke(transport, "rule[3].outcome", 7)
    poke(transport, "rule[5].outcome", 7 | 9 << 8 | 2 << 16)
    first, second = rules.firings()
    assert (first.number, first.refused, first.epoch) == (3, False, 7)
    assert (second.number, second.result, second.row) == (5, "burst too small", 2)
    assert "refused: burst too small" in str(second)
    rules.acknowledge([3, 5, 3])
    assert transport.memory[transport.map.register("rules.acknowledge").address] == 1 << 3 | 1 << 5


@pytest.mark.parametrize(("tag", "rules"), [
    (0, ()), (1, ()), (0xFFFE_0001, ()), (RULES_TAG | 1, (0,)), (RULES_TAG | 0x8005, (0, 2, 15)),
])
def test_tag_tells_which_rules_committed(tag: int, rules: tuple[int, ...]) -> None:
    assert rules_of(tag) == rules


def last(control: ControlLoop) -> Decision:
    return control.store.records(limit=1)[0].decision


def test_loop_records_what_rules_changed_and_goes_on_from_their_table(caplog: pytest.LogCaptureFixture) -> None:
    control = make()
    steps(control, 12)
    transport = transport_of(control.device)
    install(transport, 3)
    fire(transport, 3)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        steps(control, 2)
    assert not [record for record in caplog.records if "without this manager" in record.message]
    decision = last(control)
    assert (decision.source, decision.outcome) == ("rule", Outcome.CONFIRMED)
    assert decision.reason == "rule 3: latency max of tenant 1 above 20000: row of tenant 2"
    assert "rule 3, firing 1" in decision.detail
    assert {change.tenant for change in decision.changes} == {2}
    assert transport.memory[transport.map.register("rules.acknowledge").address] == 1 << 3
    assert control.active.rows[2] == RULE.row
    steps(control, 20)   # the loop decides on that table, and its commits are not stale
    assert control.refusals == 0
    assert last(control).source == "loop"


def test_another_writer_is_still_called_one(caplog: pytest.LogCaptureFixture) -> None:
    control = make()
    steps(control, 12)
    model = transport_of(control.device).model
    model.commit_rules([(2, dict(model.active_table[2], weight=70))], 12345, 0)
    with caplog.at_level(logging.WARNING):
        steps(control, 2)
    assert [record for record in caplog.records if "without this manager" in record.message]
    assert last(control).source != "rule"


def test_rules_commit_that_awaits_confirmation_is_confirmed_by_the_loop() -> None:
    control = make()
    steps(control, 12)
    transport = transport_of(control.device)
    poke(transport, "rules.confirm_within", 1_000_000)
    install(transport, 3)
    fire(transport, 3)
    assert control.driver.state().phase is Phase.AWAITING
    steps(control, 2)
    assert control.driver.state().phase is Phase.IDLE
    assert control.driver.read_active().rows[2] == RULE.row


def test_restarted_manager_keeps_and_records_a_table_of_rules() -> None:
    transport, store = ModelTransport(), MemoryStore()
    control = loop_on(transport, store, 1)
    control.start()
    steps(control, 8)
    control.settle_early("for the test")
    install(transport, 3)
    fire(transport, 3)
    for token in (2, 3):   # recorded once, however often the manager starts
        again = loop_on(transport, store, token)
        again.start()
        assert again.active.rows[2] == RULE.row
    sources = [record.decision.source for record in store.records()]
    assert sources.count("rule") == 1
    assert sources[0] == "rule"
