"""What became of a request that writes and was not answered: applied, not applied, or unknown.

A device tells with every hello how far the session before it went, and its boot nonce. From both follows whether a
request was carried out, also when another host sent it: a host that keeps a `Mark` where it outlives the host can ask
later. *Applied* says that the device carried the request out; whether a register refused a write is not known then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .operations import REPEAT_WINDOW, HelloResponse

APPLIED, NOT_APPLIED, UNKNOWN = "applied", "not applied", "unknown"


@dataclass(frozen=True)
class Mark:
    """Where a request stands among all that a device was sent."""

    boot_nonce: int
    session: int
    sequence: int


class History:
    """How far sessions went, as hellos told."""

    def __init__(self) -> None:
        self._ended: dict[tuple[int, int], int | None] = {}  # (boot nonce, session): None where two ends were told

    def learn(self, hello: HelloResponse) -> None:
        """Take what a hello tells of the session before it."""
        if hello.previous_session:
            key, end = (hello.boot_nonce, hello.previous_session), hello.previous_expected
            self._ended[key] = end if self._ended.get(key, end) == end else None

    def sessions(self) -> set[int]:
        """Numbers of the sessions that it knows of."""
        return {session for _, session in self._ended}

    def carried_out(self, mark: Mark) -> bool | None:
        """Whether the request at `mark` was; None when it cannot be told."""
        end = self._ended.get((mark.boot_nonce, mark.session))
        return None if end is None else before(mark.sequence, end)


def before(sequence: int, expected: int) -> bool:
    """Whether `sequence` comes before `expected`: they are modulo 256, and at most half of that apart."""
    return (expected - sequence - 1) % 256 < REPEAT_WINDOW


def outcome_of(fates: Iterable[bool | None]) -> str:
    """One word for several requests, of each of which is known whether it was carried out, or (None) not."""
    found = set(fates)
    if found == {True}:
        return APPLIED
    return NOT_APPLIED if found <= {False} else UNKNOWN


__all__ = ["History", "Mark", "outcome_of"]
