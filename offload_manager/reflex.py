"""Reflex rules of a device: install them, read what they did, and tell their tables from other writers'.

    rules = ReflexRules(device)
    rules.install(0, Rule(Figure.LATENCY_MAX, tenant=3, threshold=20_000, target=3, row=boosted))
    for firing in rules.firings():
        print(firing)
    rules.acknowledge([0])

The device carries out an installed rule by itself, within cycles of the window's end; a table that rules committed
has their bits in its tag. What cannot be written raises the link's own errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from device_link import Device
from offload_manager.allocation import FIELDS, RESULTS, Row

RULES_TAG = 0xFFFF_0000
_RULE_BITS = 0xFFFF


class Figure(IntEnum):
    """`rule.watch.figure`: what the analyzer measured of a tenant in one window."""

    BYTES_IN = 0
    PACKETS_IN = 1
    REQUESTS = 2
    DEPTH_MAX = 3
    DEPTH_MEAN = 4
    STALLED = 5
    BUSY = 6
    LATENCY_MEAN = 7
    LATENCY_MAX = 8
    MISSED = 9
    BYTES_OUT = 10
    FORECAST = 11
    BURSTINESS = 12
    HOST_CPU = 13
    HOST_MEMORY = 14
    FLAGS = 15
    DROPS = 16


class Comparison(IntEnum):
    """`rule.watch.comparison`."""

    ABOVE = 0
    BELOW = 1


@dataclass(frozen=True, slots=True)
class Rule:
    """When `figure` of `tenant` was beyond `threshold` for `hold` windows, `row` replaces that of `target`.

    hysteresis: how far the figure must come back before the rule is armed again. interval: fewest windows between two
    firings.
    """

    figure: Figure
    tenant: int
    threshold: int
    target: int
    row: Row
    comparison: Comparison = Comparison.ABOVE
    hysteresis: int = 0
    hold: int = 1
    interval: int = 1

    def __str__(self) -> str:
        return (f"{self.figure.name.lower().replace('_', ' ')} of tenant {self.tenant} {self.comparison.name.lower()} "
                f"{self.threshold}: row of tenant {self.target}")


@dataclass(frozen=True, slots=True)
class Firing:
    """The last firing of one rule. `firings`: since reset. `row`: as in `rm.status`, when it was refused."""

    number: int
    firings: int
    cycle: int
    epoch: int
    result: str
    row: int

    @property
    def refused(self) -> bool:
        """Whether its table was refused: then nothing changed."""
        return self.result != RESULTS[0]

    def __str__(self) -> str:
        how = f"refused: {self.result}" if self.refused else f"committed epoch {self.epoch}"
        return f"rule {self.number}, firing {self.firings}: {how}"


def rules_of(tag: int) -> tuple[int, ...]:
    """The rules that committed the table with this tag; none if it was not rules."""
    if tag & RULES_TAG != RULES_TAG:
        return ()
    return tuple(_numbers(tag & _RULE_BITS))


def _numbers(bits: int) -> list[int]:
    return [number for number in range(bits.bit_length()) if bits >> number & 1]


class ReflexRules:
    """The rules of one device."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def count(self) -> int:
        """How many rules the device has."""
        return int(self.device.rules.count.read())

    def install(self, number: int, rule: Rule) -> None:
        """Write a rule and enable it. It is disabled before its row is touched: half a row is never carried out."""
        if not 0 <= number < self.count():
            raise ValueError(f"number must be in 0..{self.count() - 1}, not {number!r}")
        entry, prepared = self.device.rule[number], self.device.prepared[number]
        self.device.write([
            (entry.watch, 0),
            *((getattr(prepared, name), getattr(rule.row, name)) for name in FIELDS),
            (entry.threshold, rule.threshold),
            (entry.hysteresis, rule.hysteresis),
            (entry.timing, {"hold": rule.hold, "interval": rule.interval}),
            (entry.target, rule.target),
            (entry.watch, {"figure": rule.figure, "tenant": rule.tenant, "comparison": rule.comparison, "enable": 1}),
        ])

    def remove(self, number: int) -> None:
        """Disable a rule."""
        self.device.write([(self.device.rule[number].watch, 0)])

    def installed(self, number: int) -> Rule | None:
        """The rule as the device has it; None when it is disabled."""
        entry, prepared = self.device.rule[number], self.device.prepared[number]
        watch, threshold, hysteresis, timing, target, *row = self.device.read([
            entry.watch, entry.threshold, entry.hysteresis, entry.timing, entry.target,
            *(getattr(prepared, name) for name in FIELDS)])
        if not watch.enable:
            return None
        return Rule(Figure(watch.figure), watch.tenant, int(threshold), int(target), Row(*(int(word) for word in row)),
                    Comparison(watch.comparison), int(hysteresis), timing.hold, timing.interval)

    def firings(self) -> list[Firing]:
        """The last firing of every rule that fired since it was acknowledged."""
        found = []
        for number in _numbers(int(self.device.rules.pending.read())):
            entry = self.device.rule[number]
            firings, cycle, outcome = self.device.read([entry.firings, entry.fired_at, entry.outcome])
            found.append(Firing(number, int(firings), int(cycle), outcome.epoch, RESULTS[outcome.result], outcome.row))
        return found

    def acknowledge(self, numbers: Iterable[int]) -> None:
        """Forget that these rules fired; a firing that comes meanwhile stays."""
        self.device.write([(self.device.rules.acknowledge, sum(1 << number for number in set(numbers)))])
