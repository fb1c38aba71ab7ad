"""Settings: one TOML form in layers, system < user < `--config` < environment < flags.

Every key is typed and known: an unknown key, a wrong type or a broken file is refused with the file and the
key named, and nothing is half applied. The environment variable of `manager.url` is `MORPHNIC_MANAGER_URL`.
A tenant's table (`[agent.tenants.3]`) is replaced as a whole by a higher layer: half of one mapping and
half of another would name the wrong process.
"""

from __future__ import annotations

import difflib
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from morphnic.errors import InputError

__all__ = ["AgentSettings", "ManagerSettings", "Settings", "TenantSettings", "load", "run_directory"]

SYSTEM_FILE = Path("/etc/morphnic/config.toml")
PREFIX = "MORPHNIC_"
MAX_TENANTS = 64


def run_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Where sockets, ready files and locks live: `$XDG_RUNTIME_DIR/morphnic`, else a private folder.

    The same rule as `device_link.rundir`, for programs that have no device link; it is no setting, because every
    process on the machine must agree on it.
    """
    variables = os.environ if environment is None else environment
    runtime = variables.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "morphnic"
    return Path(tempfile.gettempdir()) / f"morphnic-{os.getuid()}"


def state_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Where baselines are kept: `$STATE_DIRECTORY` of a service, else `$XDG_STATE_HOME/morphnic`."""
    variables = os.environ if environment is None else environment
    if variables.get("STATE_DIRECTORY"):
        return Path(variables["STATE_DIRECTORY"].split(":")[0])
    home = variables.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "morphnic"


def user_file(environment: Mapping[str, str]) -> Path:
    """The user's settings file, whether it exists or not."""
    home = environment.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "morphnic" / "config.toml"


@dataclass(frozen=True)
class TenantSettings:
    """What tenant *n* of the device is on this host: exactly one of `cgroup`, `pids`, `process`, `vm`.

    cgroup: path below the cgroup mount (`machine.slice/vm3.scope`), the same in every v1 hierarchy.
    pids: process ids; `process`: the name of a process, all that match; `vm`: a QEMU guest's name or UUID.
    interfaces: network interfaces that carry this tenant's traffic (a tap or a veth); without it network
        figures are read in the network namespace of its processes, where they have one of their own.
    """

    name: str | None = None
    cgroup: str | None = None
    pids: tuple[int, ...] = ()
    process: str | None = None
    vm: str | None = None
    interfaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class ManagerSettings:
    """Where the offload manager's API is."""

    url: str = "http://127.0.0.1:8642"
    timeout: float = 5.0


@dataclass(frozen=True)
class AgentSettings:
    """The host agent: seconds between two readings, length of the baseline, and the tenants."""

    interval: float = 1.0
    baseline_intervals: int = 30
    state_directory: Path = field(default_factory=state_directory)
    tenants: Mapping[int, TenantSettings] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """Everything that can be set.

    aliases: names of devices; each is what `--device` takes, but no other alias.
    sources: where each key that is not a default came from. notes: what looked odd; for the log, which is set up
    from these settings and so after them.
    """

    device: str | None = None
    data: Path | None = None
    log_format: str = "text"
    aliases: Mapping[str, str] = field(default_factory=dict)
    manager: ManagerSettings = field(default_factory=ManagerSettings)
    agent: AgentSettings = field(default_factory=AgentSettings)
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)


Convert = Callable[[Any], Any]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text that is not empty")
    return value


def _path(value: Any) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError("a path")
    return Path(value).expanduser()


def _url(value: Any) -> str:
    rule = "an http:// or https:// address such as 'http://127.0.0.1:8642', or unix:PATH"
    if not isinstance(value, str):
        raise ValueError(rule)
    if value.startswith("unix:/"):
        return value
    try:
        parts = urlsplit(value)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError(rule) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_valid:
        raise ValueError(rule)
    return value.rstrip("/")


def _positive(value: Any) -> float:
    """A number over zero; the environment gives it as text."""
    try:
        number = float(value) if not isinstance(value, bool) else 0.0
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError("a number over 0")
    return number


def _count(value: Any) -> int:
    """A whole number of at least 1; the environment gives it as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("a whole number of at least 1")
    return value


def _log_format(value: Any) -> str:
    if value not in ("text", "json"):
        raise ValueError("'text' or 'json'")
    return str(value)


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ValueError("a list of texts")
    return tuple(value)


def _pids(value: Any) -> tuple[int, ...]:
    good = isinstance(value, list) and value and all(type(item) is int and item > 0 for item in value)
    if not good:
        raise ValueError("a list of process ids")
    return tuple(value)


#: Every key outside the tenants' tables, and what makes its value.
KEYS: dict[str, Convert] = {
    "device": _text,
    "data": _path,
    "log_format": _log_format,
    "manager.url": _url,
    "manager.timeout": _positive,
    "agent.interval": _positive,
    "agent.baseline_intervals": _count,
    "agent.state_directory": _path,
}
TENANT_KEYS: dict[str, Convert] = {
    "name": _text, "cgroup": _text, "pids": _pids, "process": _text, "vm": _text, "interfaces": _names,
}
SECTIONS = ("manager", "agent", "aliases")
TENANTS = "agent.tenants"
ALIASES = "aliases"


def load(
    flags: Mapping[str, str | None] | None = None,
    *,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    system_file: Path = SYSTEM_FILE,
) -> Settings:
    """Read all layers. `flags` maps keys (`manager.url`) to what was typed, None where nothing was."""
    variables = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    tenants: dict[int, TenantSettings] = {}
    aliases: dict[str, str] = {}

    def apply(source: str, flat: Mapping[str, Any]) -> None:
        for key, raw in flat.items():
            if key.startswith(TENANTS + "."):
                tenants[_tenant_number(key, source)] = _tenant(key, raw, source)
            elif key.startswith(ALIASES + "."):
                aliases[_alias_name(key, source)] = _converted(key, raw, {key: _text}, source)
            else:
                values[key] = _converted(key, raw, KEYS, source)
            sources[key] = source

    for path in (system_file, user_file(variables)):
        apply(str(path), _read(path, must_exist=False))
    if config is not None:
        apply(str(config), _read(config, must_exist=True))
    notes = _apply_environment(variables, apply)
    for key, text in (flags or {}).items():
        if text is not None:
            apply(f"--{key.replace('.', '-').replace('_', '-')}", {key: text})
    return replace(_build(values, tenants, sources, variables), aliases=aliases, notes=tuple(notes))


def _build(
    values: Mapping[str, Any], tenants: Mapping[int, TenantSettings], sources: Mapping[str, str],
    environment: Mapping[str, str],
) -> Settings:
    def of(section: str) -> dict[str, Any]:
        return {key.split(".")[1]: value for key, value in values.items() if key.startswith(section + ".")}

    top = {key: value for key, value in values.items() if "." not in key}
    agent = {"state_directory": state_directory(environment)} | of("agent")
    return Settings(
        **top,
        manager=ManagerSettings(**of("manager")),
        agent=AgentSettings(**agent, tenants=dict(sorted(tenants.items()))),
        sources=sources,
    )


def _apply_environment(
    environment: Mapping[str, str], apply: Callable[[str, Mapping[str, Any]], None]
) -> list[str]:
    """Apply MORPHNIC_* variables. Others may use the prefix too: only a near miss of a key gets a note."""
    notes = []
    names = {PREFIX + key.replace(".", "_").upper(): key for key in KEYS}
    for variable, text in sorted(environment.items()):
        if variable in names and text:
            apply(variable, {names[variable]: text})
        elif variable.startswith(PREFIX) and variable not in names:
            near = difflib.get_close_matches(variable, names, n=1, cutoff=0.85)
            if near:
                notes.append(f"the environment variable {variable} is not known; did you mean {near[0]}?")
    return notes


def _read(path: Path, *, must_exist: bool) -> dict[str, Any]:
    """A settings file as flat keys; an absent system or user file is empty."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if must_exist:
            raise InputError(f"the settings file {path} does not exist; name another with --config") from None
        return {}
    except PermissionError as error:
        raise InputError(
            f"the settings file {path} cannot be read ({error.strerror}); run `chmod a+r {path}` as its owner"
        ) from error
    except IsADirectoryError as error:
        raise InputError(f"the settings file {path} is a folder; name a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the settings file {path} is not valid TOML: {error}; correct that line") from error
    return _flat(document, path)


def _flat(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """`{"manager": {"url": x}}` as `{"manager.url": x}`; each tenant's table stays one value."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if key not in SECTIONS:
            flat[key] = value
            continue
        for inner, inside in _table(key, value, path).items():
            name = f"{key}.{inner}"
            if name == TENANTS:
                flat.update({f"{name}.{number}": row for number, row in _table(name, inside, path).items()})
            else:
                flat[name] = inside
    for key in flat:
        if key not in KEYS and not key.startswith((TENANTS + ".", ALIASES + ".")):
            raise _unknown(key, KEYS, str(path))
    return flat


def _table(key: str, value: Any, path: Path) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path}: {key} must be a table ([{key}]), not {value!r}")
    return value


def _tenant_number(key: str, source: str) -> int:
    text = key.rsplit(".", 1)[1]
    if not (text.isascii() and text.isdigit() and int(text) < MAX_TENANTS):
        raise InputError(f"{source}: {key}: a tenant must be a number in 0..{MAX_TENANTS - 1}, not {text!r}")
    return int(text)


def _alias_name(key: str, source: str) -> str:
    name = key.partition(".")[2]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"{source}: an alias must be letters, digits, '.', '_' or '-', not {name!r}")
    return name


def _tenant(key: str, raw: Any, source: str) -> TenantSettings:
    row = _table(key, raw, Path(source))
    for inner in row:
        if inner not in TENANT_KEYS:
            raise _unknown(f"{key}.{inner}", [f"{key}.{name}" for name in TENANT_KEYS], source)
    converted = {
        inner: _converted(f"{key}.{inner}", value, {f"{key}.{inner}": TENANT_KEYS[inner]}, source)
        for inner, value in row.items()
    }
    ways = [name for name in ("cgroup", "pids", "process", "vm") if name in converted]
    if len(ways) != 1 and not (key == f"{TENANTS}.0" and not ways):
        found = " and ".join(ways) or "none of them"
        raise InputError(f"{source}: [{key}] must have exactly one of cgroup, pids, process, vm, not {found}")
    return TenantSettings(**converted)


def _converted(key: str, raw: Any, keys: Mapping[str, Convert], source: str) -> Any:
    try:
        return keys[key](raw)
    except ValueError as error:
        raise InputError(f"{source}: {key} must be {error}, not {raw!r}") from error


def _unknown(key: str, known: Sequence[str] | Mapping[str, Any], source: str) -> InputError:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.6)
    hint = f"did you mean '{near[0]}'?" if near else "known keys: " + ", ".join(sorted(known))
    return InputError(f"{source}: unknown key '{key}'; {hint}")


def as_document(settings: Settings) -> dict[str, Any]:
    """The settings in force as plain values, for `doctor --json` and for reports."""
    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if hasattr(value, "__dataclass_fields__"):
            return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
        return list(value) if isinstance(value, tuple) else value

    document = plain(settings)
    assert isinstance(document, dict)
    return document
