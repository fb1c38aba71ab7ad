"""Policy files: what they mean in device units, and what an error in one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from morphnic.errors import InputError
from offload_manager.allocation import Limits, check
from offload_manager.api import TenantClass
from offload_manager.policy import BestOf, LatencyTarget, MaxMin, Static
from offload_manager.policy_file import PolicyFile, PolicySource
from tests.offload_manager.views import LIMITS, Viewer, row

DEFAULT = PolicyFile.default().text


def with_tenants(*lines: str) -> str:
    """The default policy with more tenants."""
    return DEFAULT + "".join(f"  {line}\n" for line in lines)


def line_of(text: str, part: str) -> int:
    """Number of the first line with `part`."""
    return next(i for i, line in enumerate(text.splitlines(), 1) if part in line)


def test_shipped_default_is_valid_and_evaluates_several_policies() -> None:
    policy = PolicyFile.default()
    assert isinstance(policy.make_policy(), BestOf)
    assert policy.spec.name == "default"
    check(policy.make_policy().evaluate(Viewer(policy.profiles(LIMITS)).view([row()] * 4)).allocation, LIMITS,
          [p.guarantee for p in policy.profiles(LIMITS)])


def test_tenant_in_device_units() -> None:
    text = with_tenants("2: {name: db, class: latency, slo_us: 50, priority: 3, guarantee: {weight: 10, pages: 4},",
                        "    ports: [0, 3], slots: [1], rate: 25, host_share: 12.5, max_host_share: 100}")
    profile = PolicyFile.parse(text, "x").profiles(LIMITS)[2]
    assert (profile.name, profile.tenant_class, profile.slo_cycles) == ("db", TenantClass.LATENCY, 5000)
    assert (profile.guarantee.weight, profile.guarantee.pages) == (6554, 4)
    assert (profile.ports, profile.slots, profile.rate) == (0b1001, 0b10, 1 << 14)
    assert (profile.host_share, profile.max_host_share, profile.priority) == (32, 256, 3)


def test_tenant_inherits_what_it_does_not_say() -> None:
    profiles = PolicyFile.parse(with_tenants("1: {guarantee: {pages: 2}}"), "x").profiles(LIMITS)
    assert (profiles[1].guarantee.weight, profiles[1].guarantee.pages) == (66, 2)
    assert profiles[1].ports == 0b1111
    assert profiles[3].name == "tenant3"


def test_tenant_that_is_not_admitted_gets_nothing() -> None:
    policy = PolicyFile.parse(with_tenants("2: {admitted: false, guarantee: {weight: 50}}"), "x")
    profiles = policy.profiles(LIMITS)
    assert (profiles[2].guarantee.weight, profiles[2].guarantee.pages) == (0, 0)
    assert policy.make_policy().evaluate(Viewer(profiles).view([row()] * 4)).allocation.rows[2].weight == 0


@pytest.mark.parametrize(("kind", "made"), [
    ("{kind: static, weights: configured, partition: true}", Static), ("{kind: maxmin}", MaxMin),
    ("{kind: latency_target, boost_min: 2}", LatencyTarget),
])
def test_each_kind_of_policy_can_stand_alone(kind: str, made: type) -> None:
    text = f'schema: "1.0"\nname: mine\npolicy: {kind}\n'
    assert isinstance(PolicyFile.parse(text, "x").make_policy(), made)


@pytest.mark.parametrize(("good", "bad", "key", "what"), [
    ("miss_target: 0.01", "mis_target: 0.01", "policy.policies.0.mis_target", "unknown key"),
    ("miss_target: 0.01", "miss_target: often", "policy.policies.0.miss_target", "valid number"),
    ("boost_max: 128", "boost_max: 2", "policy.policies.0", "boost_max must be at least boost_min"),
    ("kind: maxmin", "kind: maximum", "policy.policies.1", "maximum"),
    ("high: 0.97", "high: 1.5", "host_shift.high", "less than or equal to 1"),
    ("target: 0.92", "target: 0.98", "host_shift", "target must be at most high"),
    ("hysteresis: 0.25", "hysteresis: -1", "loop.hysteresis", "greater than or equal to 0"),
    ("class: batch", "class: bulk", "defaults.class", "'latency' or 'batch'"),
    ("retry_windows: 50", "retry_windows: 0.5", "loop.guard.retry_windows", "integer"),
    ('schema: "1.0"', 'schema: "2.0"', "schema", "must be version 1.x, not '2.0'"),
    ("name: default", "title: default", "name", "is missing"),
])
def test_error_names_line_and_key(good: str, bad: str, key: str, what: str) -> None:
    import re
    good_line = next(line for line in DEFAULT.splitlines() if good in line)
    text = DEFAULT.replace(good_line, re.sub(r"\s*#.*", "", good_line).replace(good, bad), 1)
    with pytest.raises(InputError) as caught:
        PolicyFile.parse(text, "site.yaml")
    first = str(caught.value)
    assert f"{key}: " in first
    assert what in first
    assert re.search(r"site\.yaml:\d+: ", first)
    if what != "is missing":
        named = int(re.search(rf"site\.yaml:(\d+): {re.escape(key)}", first).group(1))  # type: ignore[union-attr]
        assert named <= line_of(text, bad)
        assert text.splitlines()[named - 1].strip().lstrip("- ").startswith(key.rsplit(".", 1)[-1]) or key[-1].isdigit()


def test_all_errors_are_told_at_once() -> None:
    text = DEFAULT.replace("miss_target", "mis_target").replace("step: 32", "step: many")
    with pytest.raises(InputError) as caught:
        PolicyFile.parse(text, "x")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(("text", "what"), [
    ("policy: [", "x:1: not YAML"), ("- a\n- b\n", "must be a mapping"), ("", "must be a mapping"),
    ("a: 1\nb: \"\x01\"\n", "not YAML"), ("a: &x [*x]\n", "x:"), ("a: 1\na: 2\n", "x:2: a: given twice"),
    ("!!python/object:os.system {}\n", "x:"),
])
def test_what_is_no_policy_is_refused(text: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        PolicyFile.parse(text, "x")


def test_key_given_twice_deep_in_the_file_is_refused() -> None:
    text = DEFAULT.replace("step: 32", "step: 32\n  step: 64")
    with pytest.raises(InputError, match=rf"x:{line_of(text, 'step: 64')}: step: given twice"):
        PolicyFile.parse(text, "x")


@pytest.mark.parametrize(("lines", "what"), [
    (["9: {}"], "tenants.9: the device has tenants 0 to 3"),
    (["1: {ports: [7]}"], "tenants.1.ports: the device has 0 to 3"),
    (["1: {slots: [2]}"], "tenants.1.slots: the device has 0 to 1"),
    (["1: {guarantee: {weight: 60}}", "2: {guarantee: {weight: 60}}"], "guaranteed weights sum to 120"),
    (["1: {guarantee: {pages: 49}}"], "guaranteed pages sum to 49"),
])
def test_policy_that_the_device_cannot_carry_is_refused(lines: list[str], what: str) -> None:
    policy = PolicyFile.parse(with_tenants(*lines), "x")
    with pytest.raises(InputError, match=what):
        policy.profiles(LIMITS)


def test_slots_owned_twice_are_refused() -> None:
    with pytest.raises(InputError, match=r"slot 1 is owned by tenants 1 and 2"):
        PolicyFile.parse(with_tenants("1: {slots: [1]}", "2: {slots: [0, 1]}"), "x").profiles(LIMITS)


def test_file_that_cannot_be_read_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--policy"):
        PolicyFile.read(tmp_path / "none.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        PolicyFile.read(binary)


def test_source_takes_text_from_the_api_and_refuses_a_bad_one() -> None:
    source = PolicySource(Limits(4, 4, 2, 64))
    source.replace(DEFAULT.replace("name: default", "name: other"))
    assert (source.current.spec.name, source.current.source, source.generation) == ("other", "API", 2)
    with pytest.raises(InputError, match="API:"):
        source.replace("nonsense: true")
    with pytest.raises(InputError, match="the device has tenants"):
        source.replace(with_tenants("50: {}"))
    assert (source.current.spec.name, source.generation) == ("other", 2)
