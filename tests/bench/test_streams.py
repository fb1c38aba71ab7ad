"""The offline stream detector of `bench/analyzer.py` against every choice of links there is."""

import random

import pytest

from bench import _streams


def most_links(links, streams, requests):
    """Most of the links that can be chosen with no more than `streams` open at any time."""
    best = 0
    for chosen in range(1 << len(links)):
        kept = [link for place, link in enumerate(links) if chosen >> place & 1]
        if len(kept) > best and all(
                sum(first <= now < last for first, last, _ in kept) <= streams for now in range(requests)):
            best = len(kept)
    return best


@pytest.mark.parametrize("streams", [1, 2, 3])
def test_no_choice_of_links_explains_more(streams):
    tried = 0
    for seed in range(40):
        rng = random.Random(seed)
        sectors = [100_000 * rng.randrange(5) + 8 * rng.randrange(20) * rng.randrange(3) for _ in range(14)]
        links = _streams._links(sectors, 12)
        if 4 <= len(links) <= 10:
            tried += 1
            explained = _streams.offline(sectors, streams=streams)
            assert sum(map(bool, explained)) == most_links(links, streams, len(sectors)), f"seed {seed}"
    assert tried > 5


def test_horizon_and_kinds():
    far = [100, *(10**6 * number for number in range(1, 13)), 108]
    assert _streams.offline(far)[-1] == _streams.RANDOM
    assert _streams.offline(far[:1] + far[2:])[-1] == _streams.SEQUENTIAL
    assert _streams.offline([5000, 4000, 3000, 2000]) == [0, 0, _streams.STRIDED, _streams.STRIDED]


@pytest.mark.parametrize(("found", "truth", "score"), [
    ([1, 1, 0], [1, 1, 0], 1), ([0, 0], [0, 0], 1), ([1, 0], [0, 1], 0), ([1, 1, 0], [1, 0, 0], 2 / 3)])
def test_f1(found, truth, score):
    assert _streams.f1(found, truth) == pytest.approx(score)
