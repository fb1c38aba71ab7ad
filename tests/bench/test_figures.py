"""The form of a figure: what a machine reads from `--json`, and that a miss is shown as a miss."""

import json
import math

import pytest

from bench._figures import Figure, report


@pytest.mark.parametrize(("value", "target", "holds"), [
    (0.9, (">=", 0.9), True), (0.89, (">=", 0.9), False), (1.0, ("<=", 0.9), False), (5.0, None, None),
    (math.nan, (">=", 0.0), False),
])
def test_target_decides_whether_a_figure_holds(value, target, holds):
    assert Figure("a.b", value, "x", {}, target).holds is holds


def test_json_has_one_object_a_line_with_every_key(capsys):
    report([Figure("a.b", 1.5, "x", {"peer": 2.0}, (">=", 2), {"load": 0.7}), Figure("a.c", 1, "s", {})], as_json=True)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"schema": 1, "figure": "a.b", "value": 1.5, "unit": "x", "reference": {"peer": 2.0},
                     "target": ">= 2", "holds": False, "conditions": {"load": 0.7}}
    assert second["target"] is None


def test_table_shows_a_miss_as_a_miss(capsys):
    report([Figure("a.b", 1.5, "x", {}, (">=", 2)), Figure("a.c", 3.0, "x", {}, (">=", 2))], as_json=False)
    _, missed, held = capsys.readouterr().out.splitlines()
    assert "MISSED" in missed
    assert "holds" in held
