"""The sequence table against a model of what a device must remember."""

import random

import pytest

from gateware.bridge.session import REMEMBERED, SequenceTable
from tests.gateware.simulation import simulate


def drive(steps):
    """Apply (session, sequence, hello, finish, status, index) steps; the outputs seen in each."""
    dut = SequenceTable()
    seen = []

    async def bench(ctx):
        for session, sequence, hello, finish, status, index in steps:
            for name, value in [("session", session), ("sequence", sequence), ("hello", hello), ("finish", finish),
                                ("end_status", status), ("end_index", index)]:
                ctx.set(getattr(dut, name), value)
            seen.append({name: ctx.get(getattr(dut, name)) for name in (
                "current", "expected", "previous_session", "previous_expected", "known", "fresh", "repeated",
                "status", "index")})
            await ctx.tick()

    simulate(dut, bench)
    return seen


@pytest.mark.parametrize("seed", [1, 2])
def test_table_matches_the_model(seed):
    rng = random.Random(seed)
    steps, expected = [], []
    current, following, previous, ends = 0, 0, (0, 0), []
    for _ in range(1500):
        session = rng.choice([current] * 20 + [rng.randrange(256)])
        sequence = (following - rng.choice([rng.randrange(-2, 20), rng.randrange(256)])) % 256
        hello = rng.random() < 0.005
        finish = not hello and rng.random() < 0.6
        status, index = rng.randrange(3), rng.randrange(200)
        steps.append((session, sequence, hello, finish, status, index))
        age = (following - sequence) % 256
        repeated = 0 < age <= min(REMEMBERED, len(ends))
        want = {"current": current, "expected": following, "previous_session": previous[0],
                "previous_expected": previous[1], "known": session != 0 and session == current,
                "fresh": age == 0, "repeated": repeated}
        if repeated:
            want |= {"status": ends[-age][0], "index": ends[-age][1]}
        expected.append(want)
        if finish:
            ends.append((status, index))
            following = (following + 1) % 256
        if hello and session != current:
            previous, current, following, ends = (current, following), session, 0, []
    seen = drive(steps)
    for step, (got, want) in enumerate(zip(seen, expected, strict=True)):
        assert {name: got[name] for name in want} == want, step
