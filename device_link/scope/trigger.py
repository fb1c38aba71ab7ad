"""Triggers by name: from an expression to the patterns and conditions of the device.

    rise(manager.changed)
    fabric.outputs0.header.valid & fabric.outputs0.header.tenant == 3
    link.rx.valid times 100 then change(manager.allocation.epoch) | !device.host_credit[2]

A trigger is up to four conditions joined by `then`; each must hold in one cycle, or in as many as `times` says, and
the next one looks from the cycle after that. In a condition: `NAME == VALUE`, `!=`, a name alone (not zero), `rise`,
`fall` and `change` of a name against the cycle before, `!`, `&`, `|` and brackets. A value is a number, the name of an
enum's member, or bits with `x` for those that do not matter (`0b1xx0`). `NAME[3]` and `NAME[7:4]` are bits of a signal.

What the device compares is four patterns in all. Comparisons that are joined by `&` share one; each `!=`, `change`
and each side of an `|` needs one of its own.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from morphnic.errors import InputError

from .capture import Probe

PATTERNS = 4
STAGES = 4
MAX_COUNT = (1 << 16) - 1
TABLE_WORDS = 16

# What a pattern allows of one bit: bit `now + 2 * before` of these.
ANY, LOW, HIGH, RISE, FALL, SAME = 0b1111, 0b0101, 0b1010, 0b0010, 0b0100, 0b1001

#: What a pattern asks: bits of the sample, and what is allowed of each.
Pattern = frozenset[tuple[int, int]]
#: Whether a condition holds when the patterns in a set of bits match.
Condition = Callable[[int], bool]

_TOKEN = re.compile(r"\s*(?:(==|!=|[!&|()])|(0b[01xX_]+|0x[0-9a-fA-F_]+|\d[\d_]*)"
                    r"|([A-Za-z_][\w.]*(?:\[\d+(?::\d+)?\])?)|(\S))")
_NAME = re.compile(r"([\w.]+)(?:\[(\d+)(?::(\d+))?\])?")


@dataclass(frozen=True)
class Program:
    """What the device is told. tables: the words of `scope_pattern`; stages: condition and count of each."""

    tables: tuple[int, ...]
    stages: tuple[tuple[int, int], ...]


def compile_trigger(text: str, probes: Sequence[Probe]) -> Program:
    """The program of a trigger; `InputError` says what is wrong, and where."""
    parser = _Parser(text, {probe.name: probe for probe in probes})
    stages = parser.sequence()
    words = tuple(1 << index for index in range(1 << PATTERNS))
    conditions = tuple((sum(bit for index, bit in enumerate(words) if holds(index)), count) for holds, count in stages)
    for number, (condition, _) in enumerate(conditions, 1):
        if not condition:
            raise InputError(f"trigger: condition {number} of {text!r} can never hold")
    bits = max(probe.low + probe.width for probe in probes)
    return Program(_tables(parser.patterns, bits), conditions)


def immediate(probes: Sequence[Probe]) -> Program:
    """The program that triggers in the first cycle."""
    return Program(_tables([], max(probe.low + probe.width for probe in probes)), ((0xFFFF, 1),))


def _tables(patterns: Sequence[Pattern], bits: int) -> tuple[int, ...]:
    asked = [dict(pattern) for pattern in patterns]
    words = []
    for low in range(0, bits, 2):
        for place in range(TABLE_WORDS):
            first, second = place & 1 | place >> 1 & 2, place >> 1 & 1 | place >> 2 & 2
            words.append(sum(1 << index for index, allowed in enumerate(asked)
                             if allowed.get(low, ANY) >> first & 1 and allowed.get(low + 1, ANY) >> second & 1))
    return tuple(words)


class _Parser:
    """A recursive descent over the tokens of one trigger; collects the patterns that it needs."""

    def __init__(self, text: str, probes: Mapping[str, Probe]) -> None:
        self._text, self._probes = text, probes
        self._tokens = [(match[match.lastindex or 0], match.start(match.lastindex or 0))
                        for match in _TOKEN.finditer(text)] + [("", len(text))]
        self._place = 0
        self.patterns: list[Pattern] = []

    # --- grammar ---

    def sequence(self) -> list[tuple[Condition, int]]:
        """Conditions and how often each must hold."""
        stages = [self._stage()]
        while self._accept("then"):
            stages.append(self._stage())
        if self._token:
            raise self._wrong("an operator, 'times' or 'then'")
        if len(stages) > STAGES:
            raise InputError(f"trigger: at most {STAGES} conditions can follow each other, not {len(stages)}")
        return stages

    def _stage(self) -> tuple[Condition, int]:
        condition = self._condition(self._or())
        if not self._accept("times"):
            return condition, 1
        if not self._token.isdigit() or not 1 <= int(self._token) <= MAX_COUNT:
            raise self._wrong(f"a number in 1..{MAX_COUNT} after 'times'")
        return condition, int(self._take())

    def _or(self) -> Pattern | Condition:
        found = self._and()
        while self._accept("|"):
            left, right = self._condition(found), self._condition(self._and())
            found = _either(left, right)
        return found

    def _and(self) -> Pattern | Condition:
        terms = [self._unary()]
        while self._accept("&"):
            terms.append(self._unary())
        patterns = [term for term in terms if isinstance(term, frozenset)]
        others = [term for term in terms if not isinstance(term, frozenset)]
        found: Pattern | Condition | None = self._merged(patterns) if patterns else None
        for other in others:
            found = other if found is None else _both(self._condition(found), other)
        assert found is not None
        return found

    def _unary(self) -> Pattern | Condition:
        if self._accept("!"):
            return _not(self._condition(self._unary()))
        if self._accept("("):
            found = self._or()
            if not self._accept(")"):
                raise self._wrong("')'")
            return found
        if self._token in ("rise", "fall", "change") and self._tokens[self._place + 1][0] == "(":
            return self._edge()
        return self._comparison()

    def _edge(self) -> Pattern | Condition:
        kind = self._take()
        self._take()
        where = self._place
        bits = self._signal()[1]
        if not self._accept(")"):
            raise self._wrong("')'")
        if kind == "change":
            return _not(self._condition(frozenset((bit, SAME) for bit in bits)))
        if len(bits) != 1:
            raise self._wrong(f"one bit, as {kind} needs ('change' takes several)", where)
        return frozenset([(bits[0], RISE if kind == "rise" else FALL)])

    def _comparison(self) -> Pattern | Condition:
        probe, bits = self._signal()
        operator = self._take() if self._token in ("==", "!=") else ""
        if not operator:
            if len(bits) == 1:
                return frozenset([(bits[0], HIGH)])
            return _not(self._condition(frozenset((bit, LOW) for bit in bits)))
        pattern = self._value(probe, bits)
        return pattern if operator == "==" else _not(self._condition(pattern))

    # --- names and values ---

    def _signal(self) -> tuple[Probe, list[int]]:
        match = _NAME.fullmatch(self._token)
        if match is None or self._token[0].isdigit() or self._token in ("then", "times"):
            raise self._wrong("the name of a probe")
        name, high, low = match.groups()
        if name not in self._probes:
            near = difflib.get_close_matches(name, self._probes, n=5, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(self._probes)}"
            raise InputError(f"trigger: the device has no probe {name!r}; {hint}")
        probe = self._probes[name]
        first, last = (0, probe.width - 1) if high is None else (int(low or high), int(high))
        if not first <= last < probe.width:
            raise self._wrong(f"bits within {probe.width - 1}..0 of {name}")
        self._take()
        return probe, [probe.low + bit for bit in range(first, last + 1)]

    def _value(self, probe: Probe, bits: Sequence[int]) -> Pattern:
        text = self._token
        names = {member: value for value, member in probe.values.items()}
        if text in names and len(bits) == probe.width:
            digits = f"{names[text]:b}"
        elif text[:2] == "0b":
            digits = text[2:].replace("_", "").lower()
        elif text[:1].isdigit():
            digits = f"{int(text, 0):b}" if text[:1] != "0" or text[1:2] == "x" else f"{int(text):b}"
        else:
            raise self._wrong("a value: a number, bits such as 0b1x0" + (f", {', '.join(names)}" if names else ""))
        if len(digits.lstrip("0")) > len(bits):
            raise self._wrong(f"a value of {len(bits)} bits")
        self._take()
        digits = digits.zfill(len(bits))[-len(bits):]
        return frozenset((bit, HIGH if digit == "1" else LOW)
                         for bit, digit in zip(bits, reversed(digits), strict=True) if digit != "x")

    # --- patterns ---

    def _merged(self, patterns: Sequence[Pattern]) -> Pattern:
        allowed: dict[int, int] = {}
        for pattern in patterns:
            for bit, values in pattern:
                allowed[bit] = allowed.get(bit, ANY) & values
        return frozenset(allowed.items())

    def _condition(self, term: Pattern | Condition) -> Condition:
        """A condition; for a pattern, that it matches."""
        if not isinstance(term, frozenset):
            return term
        if any(values == 0 for _, values in term):
            return lambda _: False
        if term not in self.patterns:
            if len(self.patterns) == PATTERNS:
                raise InputError(f"trigger: {self._text!r} compares with more than {PATTERNS} patterns; join "
                                 "comparisons by '&', or leave some out")
            self.patterns.append(term)
        mask = 1 << self.patterns.index(term)
        return lambda matches: bool(matches & mask)

    # --- tokens ---

    @property
    def _token(self) -> str:
        return self._tokens[self._place][0]

    def _take(self) -> str:
        token = self._token
        self._place += 1
        return token

    def _accept(self, token: str) -> bool:
        if self._token != token:
            return False
        self._place += 1
        return True

    def _wrong(self, wanted: str, place: int | None = None) -> InputError:
        token, column = self._tokens[self._place if place is None else place]
        found = f"{token!r}" if token else "the end"
        return InputError(f"trigger: {wanted} must stand at column {column + 1} of {self._text!r}, not {found}")


def _not(condition: Condition) -> Condition:
    return lambda matches: not condition(matches)


def _both(left: Condition, right: Condition) -> Condition:
    return lambda matches: left(matches) and right(matches)


def _either(left: Condition, right: Condition) -> Condition:
    return lambda matches: left(matches) or right(matches)
