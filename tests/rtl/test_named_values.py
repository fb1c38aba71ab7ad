"""Values that have names: written once in the register map, and the same in gateware and host software."""

from __future__ import annotations

import enum
from pathlib import Path

import pytest

import device_link.operations as host_link
import device_link.registers as host
import gateware.bridge.executor as gateware_link
import gateware.bridge.operations as gateware_operations
from device_link.scope.analyzer import State as HostScopeState
from gateware.analyzer.figures import FigureId
from gateware.engine.shard import ShardId
from gateware.manager.checker import Result
from gateware.manager.rules import Comparison as GatewareComparison
from gateware.manager.transaction import Command
from gateware.manager.transaction import Phase as GatewarePhase
from gateware.pcie.dma import Outcome as DmaOutcome
from gateware.scope.recorder import State as ScopeState
from offload_manager.allocation import RESULTS
from offload_manager.driver import Op, Phase
from offload_manager.reflex import Comparison, Figure
from rtl.registers.registermap import compile_map

#: Field of the map -> enumerations that must say the same. An enumeration may lack what it never meets.
SAME: dict[str, list[type[enum.Enum]]] = {
    "rm.command.op": [Command, Op],
    "rm.status.state": [GatewarePhase, Phase],
    "rm.status.result": [Result],
    "rule[i].watch.figure": [FigureId, Figure],
    "rule[i].watch.comparison": [GatewareComparison, Comparison],
    "rule[i].outcome.result": [Result],
    "slot[i].shard.id": [ShardId],
    "dma.status.outcome": [DmaOutcome],
    "scope.status.state": [ScopeState, HostScopeState],
}
#: Named in the map, and nowhere else.
ALONE = {"classifier[i].action.kind"}


def named_fields() -> dict[str, host.Field]:
    """Every field of the map that names values, by path."""
    return {f"{register.name}.{field.name}": field for block in host.register_map()
            for register in block.template.values() for field in register.fields.values() if field.values}


def members(kind: type[enum.Enum]) -> dict[str, int]:
    """Lower-case names and numbers of an enumeration."""
    return {member.name.lower(): int(member.value) for member in kind}


def test_every_field_that_names_values_is_compared() -> None:
    assert set(named_fields()) == set(SAME) | ALONE


@pytest.mark.parametrize("path", SAME)
def test_gateware_and_software_use_the_values_of_the_map(path: str) -> None:
    values = named_fields()[path].values
    for kind in SAME[path]:
        assert members(kind).items() <= values.items(), kind


def test_link_names_are_the_same_on_both_ends() -> None:
    # The host also knows the messages of a shared device, which no gateware hears; gateware, the absence of a reason.
    assert members(gateware_link.MessageType).items() <= members(host_link.MessageType).items()
    assert members(host_link.RejectReason).items() <= members(gateware_link.RejectReason).items()
    assert members(gateware_operations.Status) == members(host_link.Status)


def test_result_texts_stand_at_their_numbers() -> None:
    field = named_fields()["rm.status.result"]
    assert [field.title_of(number) for number in range(len(RESULTS))] == list(RESULTS)
    assert list(field.values.values()) == list(range(len(RESULTS)))


def test_value_without_a_name_is_shown_as_its_number() -> None:
    field = named_fields()["rm.status.result"]
    assert field.name_of(15) is None
    assert field.title_of(15) == "result 15"


def test_map_hash_follows_the_numbers_of_names_but_not_their_titles(tmp_path: Path) -> None:
    text = ('enum e {{ idle = 0; busy = {} {{ name = "{}"; }}; }};\naddrmap m {{ regfile {{ reg {{ '
            'field {{ sw = r; hw = w; encode = e; desc = "d"; }} s[1:0] = 0; }} word @ 0; }} b @ 0; }};\n')

    def hash_of(number: int, title: str) -> int:
        path = tmp_path / f"{number}-{title}.rdl"
        path.write_text(text.format(number, title))
        return compile_map(path).hash()

    assert hash_of(1, "busy") == hash_of(1, "at work") != hash_of(2, "busy")
