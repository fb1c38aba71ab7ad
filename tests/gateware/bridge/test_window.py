"""What leaves of the snapshots that come, and when one that comes early is kept: against a model of the contract."""

import random

import pytest

from gateware.bridge.window import WindowPusher
from tests.gateware.simulation import simulate

pytestmark = pytest.mark.slow  # together more than `make test-fast` has time for

WINDOW = 0x83
SKIPPED_WORD = 6


def run(dut, snapshots, *, gap, taken, push=lambda number: True, limit=200_000):
    """Sends `snapshots` with `gap()` cycles before each; takes a byte a cycle with probability `taken`.

    Returns the snapshots that left, in their words, and how many were counted as skipped in the end.
    """
    left, message, rng = [], bytearray(), random.Random(1)
    sent = False

    async def send(ctx):
        nonlocal sent
        for number, words in enumerate(snapshots):
            for _ in range(gap()):
                await ctx.tick()
            ctx.set(dut.push, push(number))
            for position, word in enumerate(words):
                ctx.set(dut.input.payload.data, word)
                ctx.set(dut.input.payload.last, position == len(words) - 1)
                ctx.set(dut.input.valid, 1)
                await ctx.tick()
            ctx.set(dut.input.valid, 0)
        sent = True

    async def receive(ctx):
        nonlocal message
        quiet = 0
        for _ in range(limit):
            ready = rng.random() < taken
            ctx.set(dut.output.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(dut.output.valid, dut.output.payload)
            quiet = quiet + 1 if sent and not valid else 0
            if quiet > 10:
                return
            if not (valid and ready):
                continue
            message.append(payload.data)
            if payload.last:
                assert message[:3] == bytes([WINDOW, 0, 0])
                body = message[3:]
                left.append([int.from_bytes(body[at:at + 4], "little") for at in range(0, len(body), 4)])
                message = bytearray()
        raise AssertionError("snapshots still leave")

    skipped = 0

    async def count(ctx):
        nonlocal skipped
        async for _, _, value in ctx.tick().sample(dut.skipped):
            skipped = value

    simulate(dut, send, receive, background=[count])
    assert not message, "a message was left unfinished"
    return left, skipped


def numbered(count, length, rng):
    """Snapshots whose first word is their number; word 6 counts from 0."""
    return [[number, *(0 if at == SKIPPED_WORD else rng.getrandbits(32) for at in range(1, length))]
            for number in range(count)]


def assert_whole(left, snapshots, skipped):
    """Each that left is one that came, whole and in order, and says how many were skipped before it."""
    numbers = [words[0] for words in left]
    assert numbers == sorted(set(numbers))
    for place, words in enumerate(left):
        expected = list(snapshots[words[0]])
        expected[SKIPPED_WORD] += words[0] - place
        assert words == expected
    assert skipped == len(snapshots) - len(left)


@pytest.mark.parametrize("words", [8, 40])
def test_snapshots_that_come_as_fast_as_they_leave_all_leave(words):
    """A byte a cycle leaves: a snapshot and its three bytes of header. One comes whenever one has left, then sooner and
    later by up to a third of that time, as windows do whose line carries answers too."""
    rng = random.Random(words)
    print(f"seed {words}")
    takes = 4 * words + 3
    snapshots = numbered(16, words, rng)
    due, cycle, jitter = 0, 0, []
    for _ in snapshots:
        at = due + rng.randrange(takes // 3)
        jitter.append(max(0, at - cycle))
        cycle = max(at, cycle) + words
        due += takes + 2
    left, skipped = run(WindowPusher(words), snapshots, gap=iter(jitter).__next__, taken=1.0)
    assert [found[0] for found in left] == list(range(16))
    assert_whole(left, snapshots, skipped)


@pytest.mark.parametrize("taken", [1.0, 0.3])
@pytest.mark.parametrize("words", [8, 15, 20, 42])
def test_snapshots_that_come_too_fast_are_skipped_whole_and_the_line_is_never_idle_for_long(words, taken):
    """One after another without a pause: what finds no room is dropped, and nothing is overwritten. Two of 8 or 15
    words fit, of 20 or 42 only when half of one has left."""
    rng = random.Random(words)
    print(f"seed {words}")
    snapshots = numbered(60, words, rng)
    left, skipped = run(WindowPusher(words), snapshots, gap=lambda: 0, taken=taken)
    assert_whole(left, snapshots, skipped)
    # A byte a cycle at most leaves of four that come; at least half of what could leave does.
    assert skipped > 30
    assert len(left) >= 60 * words * taken / (4 * words + 3) / 2


def test_snapshots_of_any_length_up_to_the_longest_are_kept_apart():
    """Short ones fill the memory less than the room that is asked for, and are as whole as long ones."""
    rng = random.Random(5)
    snapshots = [words[:rng.choice([1, 2, 7, 8, 40, 64, 65, 90])] for words in numbered(120, 90, rng)]
    left, skipped = run(WindowPusher(64), snapshots, gap=lambda: rng.randrange(200), taken=0.9)
    numbers = [words[0] for words in left]
    assert numbers == sorted(set(numbers))
    for before, words in enumerate(left):
        expected = list(snapshots[words[0]])
        assert len(expected) <= 64, "longer than the longest"
        if len(expected) > SKIPPED_WORD:
            expected[SKIPPED_WORD] += words[0] - before
        assert words == expected
    assert skipped == 120 - len(left)
    assert {len(words) for words in left} == {1, 2, 7, 8, 40, 64}


def test_snapshot_that_begins_while_nothing_is_pushed_is_neither_sent_nor_counted():
    rng = random.Random(3)
    snapshots = numbered(12, 20, rng)
    wanted = [number % 3 != 1 for number in range(12)]
    left, skipped = run(WindowPusher(20), snapshots, gap=lambda: 100, taken=1.0, push=wanted.__getitem__)
    assert [words[0] for words in left] == [number for number in range(12) if wanted[number]]
    assert skipped == 0
