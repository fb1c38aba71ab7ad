"""Policy files: YAML in, checked specification and policies out; errors name file, line and key.

`PolicyFile.parse` is pure. `PolicySource` watches a file and keeps the last good version when a new one has an
error. The policy that the manager ships with is data: `policies/default.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import yaml
from pydantic import ValidationError

from morphnic.errors import InputError
from offload_manager.allocation import FULL_HOST_SHARE, FULL_RATE, Guarantee, Limits
from offload_manager.policy import BestOf, LatencyTarget, MaxMin, Policy, Static
from offload_manager.policy.host_shift import HostShift
from offload_manager.policy_spec import (
    BestOfSpec,
    LatencyTargetSpec,
    MaxMinSpec,
    PolicySpec,
    Spec,
    StaticSpec,
    TenantSpec,
)
from offload_manager.profile import Profile

BUILT_IN = "built in"


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A checked policy document."""

    text: str
    source: str
    spec: Spec

    @classmethod
    def parse(cls, text: str, source: str) -> PolicyFile:
        """Check a document. `InputError` lists every error as `source:line: key: what is wrong`."""
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise InputError(f"{source}:{line}: not YAML: {error.problem}") from error
        except yaml.YAMLError as error:
            raise InputError(f"{source}:1: not YAML: {error}") from error
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{source}:1: a policy must be a mapping with the keys of the default policy")
        _check_nodes(node, source, set())
        try:
            spec = Spec.model_validate(yaml.safe_load(text))
        except yaml.constructor.ConstructorError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise InputError(f"{source}:{line}: {error.problem}: plain YAML only") from error
        except ValidationError as error:
            raise InputError(_describe(error, node, source)) from error
        return cls(text=text, source=source, spec=spec)

    @classmethod
    def read(cls, path: Path) -> PolicyFile:
        """Read and check a file."""
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"policy file {path}: {error.strerror}: give another with --policy") from error
        except UnicodeDecodeError as error:
            raise InputError(f"policy file {path} is not UTF-8 text (byte {error.start})") from error
        return cls.parse(text, str(path))

    @classmethod
    def default(cls) -> PolicyFile:
        """The policy that the manager ships with."""
        data = resources.files("offload_manager") / "policies" / "default.yaml"
        return cls.parse(data.read_text(encoding="utf-8"), BUILT_IN)

    def with_tenants(self, tenants: Mapping[int, TenantSpec]) -> PolicyFile:
        """The same policy with these tenants described so (for programs; the text stays what it was)."""
        merged = {**self.spec.tenants, **tenants}
        return replace(self, spec=self.spec.model_copy(update={"tenants": merged}))

    def with_policy(self, policy: PolicySpec) -> PolicyFile:
        """The same tenants under another policy (for benches)."""
        return replace(self, spec=self.spec.model_copy(update={"policy": policy}))

    def make_policy(self) -> Policy:
        """A fresh policy with no memory of earlier windows."""
        host = self.spec.host_shift
        return _make(self.spec.policy, HostShift(host.high, host.target, host.step))

    def profiles(self, limits: Limits) -> tuple[Profile, ...]:
        """Every tenant of the device in device units. `InputError` when the device cannot give it."""
        unknown = [t for t in self.spec.tenants if t >= limits.tenants]
        if unknown:
            raise InputError(f"{self.source}: tenants.{unknown[0]}: the device has tenants 0 to "
                             f"{limits.tenants - 1}")
        profiles = tuple(self._profile(tenant, limits) for tenant in range(limits.tenants))
        owners: dict[int, int] = {}
        for t, profile in enumerate(profiles):
            for slot in range(limits.slots):
                if profile.slots >> slot & 1 and owners.setdefault(slot, t) != t:
                    raise InputError(f"{self.source}: tenants.{t}.slots: slot {slot} is owned by tenants "
                                     f"{owners[slot]} and {t}")
        weight = sum(p.guarantee.weight for p in profiles)
        pages = sum(p.guarantee.pages for p in profiles)
        room = limits.pages - limits.packet_pages
        if weight > limits.weight_capacity:
            raise InputError(f"{self.source}: tenants: guaranteed weights sum to "
                             f"{weight / limits.weight_capacity:.1%}: lower some of them")
        if pages > room:
            raise InputError(f"{self.source}: tenants: guaranteed pages sum to {pages}, the device has {room} beside "
                             f"the {limits.packet_pages} of the largest packet: lower some of them")
        return profiles

    def _profile(self, tenant: int, limits: Limits) -> Profile:
        given = self.spec.tenants.get(tenant, TenantSpec())
        defaults, own = self.spec.defaults.model_dump(), given.model_dump(exclude_unset=True)
        guarantee = {**defaults.pop("guarantee"), **own.pop("guarantee", {})}
        values = {**defaults, **own, "guarantee": guarantee}
        spec = TenantSpec.model_validate(values)
        ports = limits.all_ports if spec.ports == "all" else sum(1 << port for port in set(spec.ports))
        slots = sum(1 << slot for slot in set(spec.slots))
        for name, mask, count in (("ports", ports, limits.ports), ("slots", slots, limits.slots)):
            if mask >> count:
                raise InputError(f"{self.source}: tenants.{tenant}.{name}: the device has 0 to {count - 1}")
        return Profile(
            name=spec.name or f"tenant{tenant}", tenant_class=spec.tenant_class, priority=spec.priority,
            slo_cycles=round((spec.slo_us or 0) * limits.clock_hz / 1e6),
            guarantee=Guarantee(round(spec.guarantee.weight / 100 * limits.weight_capacity) if spec.admitted else 0,
                                spec.guarantee.pages if spec.admitted else 0),
            ports=ports, slots=slots, rate=round(spec.rate / 100 * FULL_RATE), burst=spec.burst,
            host_share=round(spec.host_share / 100 * FULL_HOST_SHARE),
            max_host_share=round(spec.max_host_share / 100 * FULL_HOST_SHARE), admitted=spec.admitted)


class PolicySource:
    """The policy in force: the built-in one, a watched file, or text from the API.

    generation rises with every accepted change; `error` is why the newest text was refused, or None.
    """

    def __init__(self, limits: Limits, path: Path | None = None, policy: PolicyFile | None = None) -> None:
        self._path, self._limits = path, limits
        self.current = policy or (PolicyFile.read(path) if path else PolicyFile.default())
        self.profiles = self.current.profiles(limits)
        self.generation = 1
        self.error: str | None = None
        self._seen = self._stamp()

    def _stamp(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def reload_if_changed(self) -> bool:
        """Read the file again when it changed; True when a new policy is in force. Never raises for its content."""
        stamp = self._stamp()
        if self._path is None or stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self._take(PolicyFile.read(self._path))
        except InputError as error:
            self.error = f"{error} (the last good policy stays in force)"
            return False
        return True

    def replace(self, text: str) -> None:
        """Take a document from the API; `InputError` leaves everything as it was."""
        self._take(PolicyFile.parse(text, "API"))

    def _take(self, policy: PolicyFile) -> None:
        self.profiles = policy.profiles(self._limits)
        self.current = policy
        self.generation += 1
        self.error = None


def _make(spec: PolicySpec, host_shift: HostShift) -> Policy:
    match spec:
        case StaticSpec():
            return Static(spec.weights, spec.partition)
        case MaxMinSpec():
            return MaxMin(spec.idle_weight, spec.page_part, host_shift)
        case LatencyTargetSpec():
            parameters = spec.model_dump(exclude={"kind"})
            return LatencyTarget(**parameters, host_shift=host_shift)
        case BestOfSpec():
            return BestOf([_make(part, host_shift) for part in spec.policies], spec.margin)


def _check_nodes(node: yaml.Node, source: str, seen: set[int]) -> None:
    """Refuse keys given twice, of which YAML takes the last silently, and aliases, which can make a file endless."""
    if isinstance(node, yaml.ScalarNode):
        return
    if id(node) in seen:
        raise InputError(f"{source}:{node.start_mark.line + 1}: anchors and aliases are not used in a policy: write "
                         "the values out")
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in names:
                raise InputError(f"{source}:{key.start_mark.line + 1}: {name}: given twice")
            names.add(name)
            _check_nodes(value, source, seen)
    else:
        for item in node.value:
            _check_nodes(item, source, seen)


def _describe(error: ValidationError, node: yaml.Node, source: str) -> str:
    """One line for each error, each with the line of the nearest key that the file has."""
    lines = []
    for fault in error.errors():
        path = [part for part in fault["loc"] if part != "[key]"]
        line, keys = _locate(node, path, missing=fault["type"] == "missing")
        what = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            what = "unknown key"
        elif fault["type"] == "missing":
            what = "is missing"
        lines.append(f"{source}:{line}: {'.'.join(keys) or 'policy'}: {what}")
    return "\n".join(dict.fromkeys(lines))


def _locate(node: yaml.Node, path: list[int | str], *, missing: bool) -> tuple[int, list[str]]:
    """Line of the deepest node on `path`, and the path in the user's words.

    pydantic's path also names the member of a union (the policy's kind), which the file does not have.
    """
    line, keys = node.start_mark.line + 1, []
    for position, part in enumerate(path):
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if str(k.value) == str(part)), None)
            if found is None:
                if missing and position == len(path) - 1:
                    keys.append(str(part))
                continue
            line, node = found[0].start_mark.line + 1, found[1]
            keys.append(str(part))
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
            keys.append(str(part))
    return line, keys
