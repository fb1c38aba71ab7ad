"""One run of requests through a session: what is in flight, what is repeated, and when it is given up.

Up to 64 requests are in flight; on a serial line they go out as the device's buffer takes them (see `pacing`). An
answer that does not come, or a reject, repeats every unanswered request from the first (go-back-N; the device
recognises the repeated ones). Three rules keep a repetition from changing what was asked, because a device does the
*reads* of a repeated request again:

- one request never writes after it has read;
- a request that writes waits until every request that reads is answered;
- where a failure must stop what follows (`ordered`), a request that writes waits for every answer before it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .operations import Failure, Message, Reject, RejectReason, Response, Status
from .pacing import Pacer
from .planning import Flight

if TYPE_CHECKING:
    from .session import Session

RETRY_MARGIN = 0.05  # seconds beyond the time on the wire before an answer counts as lost
WINDOW_ALLOWANCE = 1200  # bytes of a pushed window that may stand before an answer
_MAX_BACKOFF = 8.0


class GivenUp(Exception):
    """Requests stay unanswered; the text says why."""


class Exchange:
    """One run of requests through a session; keeps what is in flight."""

    def __init__(self, session: Session, flights: list[Flight], *, ordered: bool) -> None:
        self._session = session
        self._pipe = session.pipe
        self.flights = flights
        self._ordered = ordered
        self._failed = False
        self._sent = 0
        self._again: deque[Flight] = deque()  # to be repeated, before anything new is sent
        self._resynchronise = False
        self._backoff = 1.0
        self._retry_at = self._quiet_until = self._deadline = self._room_at = 0.0
        self._pacer = Pacer(*session.buffer)
        self._pushed_before = session.pushed_time

    def fate(self, flight: Flight) -> bool | None:
        """Whether `flight` was carried out as a whole; None while that is not known."""
        if isinstance(flight.response, Response):
            return True if flight.response.status == Status.DONE else None
        return None if any(one is flight for one in self.flights[:self._sent]) else False

    def unanswered(self) -> list[Flight]:
        """Requests that were sent and have no answer."""
        return [flight for flight in self.flights[:self._sent] if flight.response is None]

    def run(self) -> int:
        """Exchange until all requests, or all up to a failure, are answered; how many were sent.

        Raises `GivenUp`, and `LinkLost` where the pipe does; `unanswered` are then those in doubt.
        """
        while True:
            self._send_more()
            unanswered = self.unanswered()
            if not unanswered:
                return self._sent
            now = self._pipe.now()
            if now >= self._deadline:
                raise GivenUp(f"no answer within {self._session.timeout:g} s")
            if now >= self._retry_at:
                self._backoff = min(2 * self._backoff, _MAX_BACKOFF)
                self._repeat(unanswered)
                continue
            until = min(self._retry_at, self._deadline, self._room_at)
            for message in self._session.received(max(0.0, until - now)):
                self._take(message)

    def _send_more(self) -> None:
        going: list[Flight] = []
        repeated: list[Flight] = []
        self._room_at = math.inf
        while (flight := self._next()) is not None:
            if not self._has_room(flight):
                break
            if self._again:
                repeated.append(self._again.popleft())
            else:
                self._sent += 1
            going.append(flight)
        if not going:
            return
        self._pipe.send([flight.message for flight in going], resynchronise=self._resynchronise)
        self._resynchronise = False
        self._restart_timers()
        now = self._pipe.now()
        for flight in repeated:
            flight.lost_after = now + self._on_wire()
            flight.damaged_after = now + 0.9 * self._pipe.wire_time(flight.wire_bytes)

    def _next(self) -> Flight | None:
        """What may be sent next: a repetition, or the next request if nothing forbids it."""
        while self._again and self._again[0].response is not None:
            self._again.popleft()  # its answer came after all
        if self._again:
            return self._again[0]
        if self._failed or self._sent == len(self.flights):
            return None
        flight, unanswered = self.flights[self._sent], self.unanswered()
        # The device remembers sequences, so what counts is the distance to the first unanswered one.
        first = unanswered[0].sequence if unanswered else flight.sequence
        if (flight.sequence - first) % 256 >= self._session.in_flight or not self._may_send(flight, unanswered):
            return None
        return flight

    def _has_room(self, flight: Flight) -> bool:
        """Whether the device's buffer has room for `flight` when it arrives; else `_room_at` says when it will."""
        if self._pipe.reliable:
            return True
        self._pacer.delayed(self._session.pushed_time - self._pushed_before)
        self._pushed_before = self._session.pushed_time
        now, there = self._pipe.now(), self._pipe.wire_time(flight.size)
        room_at = self._pacer.earliest(now, flight.size, there)
        if room_at > now:
            self._room_at = room_at
            return False
        self._pacer.sent(now, flight.sequence, flight.size, there,
                         self._pipe.wire_time(flight.wire_bytes - flight.size))
        return True

    def _may_send(self, flight: Flight, unanswered: Sequence[Flight]) -> bool:
        if not flight.writes or not unanswered:
            return True
        if self._ordered:
            return False
        return self._pipe.reliable or not (flight.reads or any(earlier.reads for earlier in unanswered))

    def _restart_timers(self) -> None:
        now, on_wire = self._pipe.now(), self._on_wire()
        # A reliable pipe loses nothing: to repeat would only load a server that is slow.
        self._retry_at = math.inf if self._pipe.reliable else now + self._backoff * (on_wire + RETRY_MARGIN)
        self._deadline = now + self._session.timeout + on_wire

    def _on_wire(self) -> float:
        """Seconds until everything in flight can be answered."""
        return self._pipe.wire_time(sum(flight.wire_bytes for flight in self.unanswered()) + WINDOW_ALLOWANCE)

    def _repeat(self, flights: Sequence[Flight]) -> None:
        """Send `flights` again, from the oldest; what the device's buffer holds now is not known any more."""
        deadline = self._deadline
        self._session.repeated += len(flights)
        # Every request that a device skips is rejected by itself: those of before this repetition arrive until
        # then. Its answers come behind those of all that is in flight.
        self._quiet_until = self._pipe.now() + self._pipe.wire_time(sum(flight.size for flight in flights))
        self._again = deque(flights)
        self._resynchronise = True
        self._pacer = Pacer(*self._session.buffer)
        self._send_more()
        self._deadline = deadline  # a repetition is no progress

    def _repeat_rejected(self) -> None:
        self._backoff = 1.0  # the line is alive: what is lost now need not be waited for as long
        unanswered = self.unanswered()
        if unanswered and self._pipe.now() >= self._quiet_until:
            self._repeat(unanswered)

    def _repeat_damaged(self) -> None:
        """A frame from the device was damaged: answers come in order, so it was that of the first request."""
        self._backoff = 1.0
        first = self.unanswered()[:1]
        if first and self._pipe.now() >= first[0].damaged_after:
            self._repeat(first)

    def _repeat_lost(self, flights: Sequence[Flight]) -> None:
        """A later request was answered: the answers to `flights` were lost."""
        lost = [flight for flight in flights if self._pipe.now() >= flight.lost_after]
        if lost:
            self._repeat(lost)

    def _take(self, message: Message | None) -> None:
        session = self._session.number
        match message:
            case None:
                self._repeat_damaged()
            case Reject(reason=RejectReason.CORRUPT):
                self._repeat_rejected()
            case Response(session=number) | Failure(session=number) if number == session:
                self._answered(message)
            case Reject(reason=RejectReason.NO_SESSION, session=number) if number == session:
                raise GivenUp("the device no longer knows the session")
            case Reject(session=number) if number == session:
                self._repeat_rejected()

    def _answered(self, response: Response | Failure) -> None:
        unanswered = self.unanswered()
        for position, flight in enumerate(unanswered):
            if flight.sequence == response.sequence:
                flight.response = response
                self._pacer.answered(self._pipe.now(), flight.sequence)
                self._failed |= isinstance(response, Failure) or response.status != Status.DONE
                self._backoff = 1.0
                self._restart_timers()
                self._repeat_lost(unanswered[:position])
                return
