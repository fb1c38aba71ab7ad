"""Golden model of the reflex rules, a figure at a time, over the model of the resource manager.

Written from the rules' contract alone. `RuleModel.figure` takes one figure of the analyzer; `act` carries out what is
due, as the device does by itself whenever nothing holds the rules.
"""

from dataclasses import dataclass, field

from tests.gateware.manager.model import OK, ResourceManagerModel, Row

RULES_TAG = 0xFFFF0000
RULE_COUNT = 16
ABOVE, BELOW = 0, 1


@dataclass
class Rule:
    """Setting and memory of one rule."""

    figure: int = 0
    tenant: int = 0
    comparison: int = ABOVE
    enable: int = 0
    threshold: int = 0
    hysteresis: int = 0
    hold: int = 0
    interval: int = 0
    target: int = 0
    row: Row = field(default_factory=dict)
    firings: int = 0
    outcome: tuple[int, int, int] = (0, 0, 0)   # epoch, result, row

    def __post_init__(self) -> None:
        self.arm()

    def arm(self) -> None:
        """As after a write to `watch`."""
        self.armed, self.due, self.streak = True, False, 0
        self.windows_since_firing: int | None = None

    def fire(self) -> None:
        self.armed, self.windows_since_firing, self.firings = False, 0, self.firings + 1

    def evaluate(self, value: int) -> None:
        """A new figure of the one that is watched."""
        if self.windows_since_firing is not None:
            self.windows_since_firing += 1
        if self.comparison == ABOVE:
            beyond, back = value > self.threshold, value <= self.threshold - self.hysteresis
        else:
            beyond, back = value < self.threshold, value >= self.threshold + self.hysteresis
        self.armed = self.armed or back
        self.streak = self.streak + 1 if beyond else 0
        rested = self.windows_since_firing is None or self.windows_since_firing >= self.interval
        self.due = beyond and self.armed and rested and self.streak >= self.hold


class RuleModel:
    """All rules of a device."""

    def __init__(self, manager: ResourceManagerModel) -> None:
        self.manager = manager
        nobody = dict(manager.active_table[1])
        self.rules = [Rule(row=dict(nobody)) for _ in range(RULE_COUNT)]
        self.pending = 0
        self.refused = 0
        self.confirm_within = 0
        self.one_by_one = False

    def figure(self, tenant: int, figure: int, value: int) -> None:
        for rule in self.rules:
            if rule.enable and (rule.tenant, rule.figure) == (tenant, figure):
                rule.evaluate(value)

    @property
    def waiting(self) -> int:
        return sum(rule.due << number for number, rule in enumerate(self.rules))

    @property
    def firings(self) -> int:
        return sum(rule.firings for rule in self.rules)

    def act(self) -> None:
        """Carry out what is due until nothing is, or until something holds it."""
        while self.waiting and not self.manager.holds_rules:
            due = [number for number, rule in enumerate(self.rules) if rule.due]
            # A target that does not exist ends the table at once: what is due behind it is not part of it.
            unknown = [place for place, number in enumerate(due)
                       if self.rules[number].target >= self.manager.config.tenants]
            taken = due[:1] if self.one_by_one else due[:min(unknown, default=len(due)) + 1]
            rows = [(self.rules[number].target, self.rules[number].row) for number in taken]
            tag = RULES_TAG | sum(1 << number for number in taken)
            result, row = self.manager.commit_rules(rows, tag, self.confirm_within)
            if result != OK and len(taken) > 1:
                self.one_by_one = True
                continue
            for number in taken:
                self.rules[number].due = False
                self.rules[number].fire()
                self.rules[number].outcome = (self.manager.epoch, result, row)
                self.pending |= 1 << number
                self.refused += result != OK
        if not self.waiting:
            self.one_by_one = False
