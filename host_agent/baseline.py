"""The host's baseline: mean and spread of every figure over the first N intervals.

Kept in the state directory, so that a restarted agent compares with the same past. It is made anew when the
tenants' mapping or the interval changes, for then it describes something else.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from host_agent.collect.collector import Sample
from morphnic.errors import EnvironmentFault, InputError
from morphnic.files import replace_text

__all__ = ["Baseline", "Statistic"]

SCHEMA = "1.0"
FILE = "host-baseline.json"

log = logging.getLogger(__name__)


@dataclass
class Statistic:
    """Running mean and spread (Welford's recurrence: it does not cancel when values are large)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Take one value in."""
        self.count += 1
        delta = value - self.mean
        self.mean += delta / self.count
        self.squares += delta * (value - self.mean)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation; None below two values."""
        return math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else None


@dataclass
class Baseline:
    """Statistics a tenant and figure. `intervals` is how many were taken in, `wanted` how many make it complete.

    identity: what was measured (tenant mapping and interval), in canonical form.
    """

    wanted: int
    identity: str
    intervals: int = 0
    tenants: dict[int, dict[str, Statistic]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether enough intervals were seen; then it does not change any more."""
        return self.intervals >= self.wanted

    def add(self, sample: Sample) -> None:
        """Take one interval in; figures that are absent are left out of theirs."""
        if self.complete:
            return
        self.intervals += 1
        for tenant, figures in sample.tenants.items():
            statistics = self.tenants.setdefault(tenant, {})
            for name, figure in figures.items():
                if figure.value is not None:
                    statistics.setdefault(name, Statistic()).add(figure.value)

    def deviation(self, tenant: int, name: str, value: float) -> float | None:
        """How many spreads `value` is from the mean; None without a mean or a spread."""
        statistic = self.tenants.get(tenant, {}).get(name)
        if statistic is None or not statistic.spread:
            return None
        return (value - statistic.mean) / statistic.spread

    def document(self) -> dict[str, Any]:
        """As it is kept and printed."""
        return {
            "schema": SCHEMA, "wanted": self.wanted, "intervals": self.intervals, "complete": self.complete,
            "identity": self.identity,
            "tenants": {
                str(tenant): {name: asdict(one) | {"spread": one.spread} for name, one in figures.items()}
                for tenant, figures in sorted(self.tenants.items())
            },
        }

    def save(self, folder: Path) -> Path:
        """Write it by an atomic rename: a killed agent leaves the old one or the new one."""
        path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_text(path, json.dumps(self.document(), indent=1))
        except OSError as error:
            raise EnvironmentFault(
                f"the baseline cannot be kept in {folder} ({error.strerror}); "
                "name another folder with --state-directory"
            ) from error
        return path


def load(folder: Path) -> Baseline | None:
    """The baseline that is kept in `folder`; None when there is none yet."""
    path = folder / FILE
    remedy = f"remove it and the agent makes a new one: rm {path}"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EnvironmentFault(f"the baseline {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"the baseline {path} is damaged ({error}); {remedy}") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str) or schema.split(".")[0] != SCHEMA.split(".")[0]:
        raise InputError(f"the baseline {path} has schema {schema!r}, this version reads {SCHEMA}; {remedy}")
    try:
        return _parsed(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the baseline {path} is incomplete ({error}); {remedy}") from error


def _parsed(document: Mapping[str, Any]) -> Baseline:
    tenants = {
        int(tenant): {
            name: Statistic(int(one["count"]), float(one["mean"]), float(one["squares"]))
            for name, one in figures.items()
        }
        for tenant, figures in document["tenants"].items()
    }
    return Baseline(int(document["wanted"]), str(document["identity"]), int(document["intervals"]), tenants)


def resume(folder: Path, wanted: int, identity: str) -> Baseline:
    """The baseline that is kept, if it is of the same things; else a new, empty one.

    A damaged file must not keep a service from starting: it is logged and replaced.
    """
    try:
        kept = load(folder)
    except InputError as error:
        log.warning("%s; a new one is made now", error)
        kept = None
    if kept is not None and kept.identity == identity and kept.wanted == wanted:
        return kept
    if kept is not None:
        log.info("the settings changed since the baseline was made; a new one is made")
    return Baseline(wanted, identity)
