"""Triggers by name: what the device is told means what was typed, and what cannot be told is refused with the place."""

import random

import pytest

from device_link.scope import Probe, compile_trigger
from morphnic.errors import InputError

PROBES = (Probe("a", 0, 1, {}), Probe("b.wide", 1, 4, {1: "ONE", 6: "SIX"}), Probe("b.flag", 5, 1, {}),
          Probe("c.other", 6, 3, {}))
BITS = 9


def matches_of(tables, now, before):
    """Patterns that match, as the register map says what the tables mean."""
    found = 0b1111
    for table in range((BITS + 1) // 2):
        place = now >> 2 * table & 3 | (before >> 2 * table & 3) << 2
        found &= tables[16 * table + place]
    return found


def holds(program, stage, now, before):
    """Whether the condition of a stage holds."""
    return bool(program.stages[stage][0] >> matches_of(program.tables, now, before) & 1)


class Expression:
    """A random condition: its text, and what it means."""

    def __init__(self, rng, depth=3):
        kinds = ["compare", "compare", "bare", "edge", "change", "bits", "not", "and", "or"]
        kind = rng.choice(kinds) if depth else "compare"
        probe = rng.choice(PROBES)
        value = rng.getrandbits(probe.width)
        if kind in ("and", "or"):
            left, right = Expression(rng, depth - 1), Expression(rng, depth - 1)
            sign = "&" if kind == "and" else "|"
            self.text = f"({left.text}) {sign} ({right.text})"
            together = all if kind == "and" else any
            self.means = lambda now, before: together(side.means(now, before) for side in (left, right))
        elif kind == "not":
            inner = Expression(rng, depth - 1)
            self.text, self.means = f"!({inner.text})", lambda now, before: not inner.means(now, before)
        elif kind == "edge":
            bit = rng.randrange(probe.width)
            rises = rng.random() < 0.5
            name = probe.name if probe.width == 1 else f"{probe.name}[{bit}]"
            self.text = f"{'rise' if rises else 'fall'}({name})"
            self.means = lambda now, before: (probe.extract(now) >> bit & 1, probe.extract(before) >> bit & 1) == (
                rises, not rises)
        elif kind == "change":
            self.text = f"change({probe.name})"
            self.means = lambda now, before: probe.extract(now) != probe.extract(before)
        elif kind == "bare":
            self.text, self.means = probe.name, lambda now, before: probe.extract(now) != 0
        elif kind == "bits":
            low = rng.randrange(probe.width)
            high = rng.randrange(low, probe.width)
            masked = "".join(rng.choice("01x") for _ in range(high - low + 1))
            self.text = f"{probe.name}[{high}:{low}] == 0b{masked}"
            self.means = lambda now, before: all(
                digit in ("x", str(probe.extract(now) >> low + place & 1))
                for place, digit in enumerate(reversed(masked)))
        else:
            equal = rng.random() < 0.6
            shown = probe.values.get(value, rng.choice([str(value), hex(value), f"0b{value:b}"]))
            self.text = f"{probe.name} {'==' if equal else '!='} {shown}"
            self.means = lambda now, before: (probe.extract(now) == value) == equal


def test_random_conditions_hold_when_they_mean_to():
    compiled = never = too_many = 0
    for seed in range(300):
        rng = random.Random(seed)
        expression = Expression(rng)
        print(f"seed={seed} {expression.text}")
        pairs = [(rng.getrandbits(BITS), rng.getrandbits(BITS)) for _ in range(40)]
        pairs += [(now, now ^ 1 << rng.randrange(BITS)) for now, _ in pairs]
        try:
            program = compile_trigger(expression.text, PROBES)
        except InputError as error:
            refused = str(error)
        else:
            compiled += 1
            for pair in pairs:
                assert holds(program, 0, *pair) == bool(expression.means(*pair)), pair
            continue
        if "can never hold" in refused:
            never += 1
            assert not any(expression.means(*pair) for pair in pairs)
        else:
            too_many += 1
            assert "compares with more than 4 patterns" in refused
    print(f"{compiled} compiled, {never} never hold, {too_many} need too many patterns")
    assert compiled > 200
    assert never > 0
    assert too_many > 0


def test_comparisons_that_are_joined_share_a_pattern_over_all_conditions():
    text = "a & b.wide == 6 & rise(b.flag) | c.other != 0 then a & b.wide == SIX & rise(b.flag) times 7 then !a then a"
    program = compile_trigger(text, PROBES)
    assert [count for _, count in program.stages] == [1, 7, 1, 1]
    flag_rises = 1 << 5 | 6 << 1 | 1
    assert [holds(program, stage, flag_rises, 0) for stage in range(4)] == [True, True, False, True]


@pytest.mark.parametrize(("text", "message"), [
    ("", "the name of a probe must stand at column 1 of '', not the end"),
    ("a &", "the name of a probe must stand at column 4 of 'a &', not the end"),
    ("a b.flag", "an operator, 'times' or 'then' must stand at column 3 of 'a b.flag', not 'b.flag'"),
    ("(a", "')' must stand at column 3"),
    ("a = 1", "must stand at column 3 of 'a = 1', not '='"),
    ("b.wide == 16", "a value of 4 bits must stand at column 11 of 'b.wide == 16', not '16'"),
    ("b.wide == SEVEN", "a value: a number, bits such as 0b1x0, ONE, SIX must stand at column 11"),
    ("b.wide > 3", "must stand at column 8 of 'b.wide > 3', not '>'"),
    ("b.wide[4]", "bits within 3..0 of b.wide must stand at column 1"),
    ("rise(b.wide)", "one bit, as rise needs ('change' takes several) must stand at column 6"),
    ("a times 0", "a number in 1..65535 after 'times' must stand at column 9"),
    ("a times 65536", "a number in 1..65535 after 'times'"),
    ("a then", "the name of a probe must stand at column 7"),
    ("a then a then a then a then a", "at most 4 conditions can follow each other, not 5"),
    ("b.wdie == 1", "the device has no probe 'b.wdie'; did you mean b.wide"),
    ("zzz", "the device has no probe 'zzz'; known: a, b.wide, b.flag, c.othe"),
    ("a then rise(a) & !rise(a) & a == 0", "condition 2 of 'a then rise(a) & !rise(a) & a == 0' can never hold"),
    ("a & a == 0", "condition 1 of 'a & a == 0' can never hold"),
    ("b.wide == 1 | b.wide == 2 | b.wide == 3 | b.wide == 4 | b.wide == 5", "compares with more than 4 patterns"),
])
def test_what_cannot_be_told_the_device_is_refused(text, message):
    with pytest.raises(InputError) as caught:
        compile_trigger(text, PROBES)
    assert message in str(caught.value)
