"""What the analyzer's stream detector is compared with: the best offline detectors, and interleavings made for it.

All of them judge by sectors alone, as the device does (a request word has no length), and by the same rules: a request
continues one that lies 1 to `REACH` sectors before it (sequential), or one that lies exactly as far before it as that
one lies behind *its* predecessor (strided, within `SPAN`). A request is continued once.

What "best offline with four streams and the same horizon" means here. Knowing the whole trace, link each request to the
newest earlier one that it continues, not more than `horizon` requests of its tenant back (for a stride: each of its two
steps). A link occupies one of the detector's streams from the request that it must remember to the one that it
explains. Of all links take the largest set in which no more than `streams` overlap at any time: the usual optimum for
intervals on so many machines (go through them by their beginning; when one too many overlaps, give up the one that
ends last). No detector that holds four streams, however it chooses which to forget, explains more requests by these
links.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from gateware.analyzer.pattern import HORIZON, REACH, SPAN

__all__ = ["FAR", "UNLIMITED", "f1", "interleaving", "offline"]

RANDOM, SEQUENTIAL, STRIDED = range(3)
UNLIMITED = 1 << 30
#: Horizon of the unlimited oracle, in requests of the tenant: longer changes nothing that can be computed in seconds.
FAR = 1024

Link = tuple[int, int, int]  # remembered from, explains, kind


def f1(found: Sequence[bool], truth: Sequence[bool]) -> float:
    """Harmonic mean of precision and recall; 1 when there is nothing to find and nothing was found."""
    both = sum(a and b for a, b in zip(found, truth, strict=True))
    either = sum(found) + sum(truth)
    return 2 * both / either if either else 1.0


def offline(sectors: Sequence[int], *, horizon: int = HORIZON, streams: int = 4) -> list[int]:
    """How each request of one tenant is explained by the best detector with so many streams."""
    kinds = [RANDOM] * len(sectors)
    open_links: list[Link] = []
    for link in sorted(_links(sectors, horizon)):
        kinds[link[1]] = link[2]
        open_links = [other for other in open_links if other[1] > link[0]] + [link]
        if len(open_links) > streams:
            last = max(open_links, key=lambda other: other[1])
            open_links.remove(last)
            kinds[last[1]] = RANDOM
    return kinds


def _links(sectors: Sequence[int], horizon: int) -> list[Link]:
    """Every request's link to the newest that it continues, sequential before strided."""
    links: list[Link] = []
    continued: set[int] = set()
    strides: dict[int, int] = {}
    for now, sector in enumerate(sectors):
        earlier = [place for place in range(now - 1, max(0, now - horizon) - 1, -1) if place not in continued]
        before = next((place for place in earlier if 1 <= sector - sectors[place] <= REACH), None)
        if before is not None:
            links.append((before, now, SEQUENTIAL))
            continued.add(before)
            continue
        for place in earlier:
            stride = sector - sectors[place]
            if 0 <= stride <= REACH or not -SPAN <= stride < SPAN:
                continue
            first = place if strides.get(place) == stride else _before(sectors, place, stride, horizon)
            if first is not None:
                links.append((first, now, STRIDED))
                continued.add(place)
                strides[now] = stride
                break
    return links


def _before(sectors: Sequence[int], place: int, stride: int, horizon: int) -> int | None:
    """The newest request within the horizon that lies one stride before `place`."""
    wanted = sectors[place] - stride
    places = range(place - 1, max(0, place - horizon) - 1, -1)
    return next((first for first in places if sectors[first] == wanted), None)


def interleaving(seed: int, requests: int, *, streams: int, steps: Sequence[int], noise: float,
                 in_turn: bool) -> list[int]:
    """Sectors of `streams` streams that advance by `steps`, in turn or at random, with a share of random requests."""
    rng = random.Random(seed)
    places = [rng.getrandbits(36) for _ in range(streams)]
    sectors: list[int] = []
    turn = 0
    while len(sectors) < requests:
        if rng.random() < noise:
            sectors.append(rng.getrandbits(36))
            continue
        stream = turn % streams if in_turn else rng.randrange(streams)
        turn += 1
        sectors.append(places[stream] % (1 << 36))
        places[stream] += steps[stream % len(steps)]
    return sectors
