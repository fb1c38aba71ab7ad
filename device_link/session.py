"""The protocol engine of the host: sessions, sequence numbers, repetition, and what became of a write.

Up to 64 requests are in flight; on a serial line they go out as the device's buffer takes them (see `pacing`). An
answer that does not come, or a reject, repeats every unanswered request from the first (go-back-N; the device
recognises the repeated ones). Three rules keep a repetition from changing what was asked, because a device does the
*reads* of a repeated request again:

- one request never writes after it has read;
- a request that writes waits until every request that reads is answered;
- where a failure must stop what follows (`ordered`), a request that writes waits for every answer before it.

A session number left over from an earlier host may be the one chosen here, and the device then goes on with old
sequence numbers: the second of two hellos with different numbers is always new, so opening takes two.
"""

from __future__ import annotations

import json
import logging
import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from morphnic.errors import DeviceBusy, LinkError, LinkLost, LinkTimeout

from .operations import (
    BUFFER_BYTES,
    BUFFER_MESSAGES,
    PROTOCOL_VERSION,
    Control,
    Failure,
    Hello,
    HelloResponse,
    MalformedMessage,
    Message,
    Operation,
    Reject,
    RejectReason,
    Request,
    Response,
    Status,
    WindowPush,
    decode_message,
    encode_operations,
    is_write,
    read_count,
    touched,
)
from .pacing import Pacer
from .pipe import MessagePipe
from .planning import Flight, plan
from .transport import BusError

log = logging.getLogger(__name__)

IN_FLIGHT = 64
KEPT_WINDOWS = 4096
_RETRY_MARGIN = 0.05  # seconds beyond the time on the wire before an answer counts as lost
_MAX_BACKOFF = 8.0
_WINDOW_ALLOWANCE = 1200  # bytes of a pushed window that may stand before an answer


class DeviceReset(LinkError):
    """The device was reset, or another host took its session, while requests were unanswered; see `outcome`."""

    def __init__(self, message: str, *, outcome: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class Session:
    """Exchanges with one device over a `MessagePipe`.

    timeout: seconds without an answer, beyond the time on the wire, after which an exchange gives up.
    unresolved: outcome of the writes that the last failed exchange left unanswered; None when there were none.
    """

    def __init__(self, pipe: MessagePipe, *, url: str, timeout: float, seed: int | None = None) -> None:
        self.pipe = pipe
        self._url = url
        self.timeout = timeout
        self._numbers = random.Random(seed)
        self.number: int | None = None
        self._synchronised = False
        self._next_sequence = 0
        self._largest = 0
        self.in_flight = IN_FLIGHT
        self.buffer = (BUFFER_BYTES, BUFFER_MESSAGES)
        self._control_sequence = 0
        self._windows: deque[bytes] = deque(maxlen=KEPT_WINDOWS)
        self.pushed_time = 0.0  # seconds that pushed windows have taken on the line so far
        self.boot_nonce: int | None = None
        self.unresolved: str | None = None
        self.repeated = 0

    # --- opening ---

    def open(self) -> HelloResponse:
        """Begin a fresh session; tells how far the one before it went."""
        first = self._hello(self._another_session())
        second = self._hello(self._another_session(first.session))
        if second.version != PROTOCOL_VERSION:
            raise LinkError(f"{self._url}: the device speaks version {second.version} of the link protocol, this "
                            f"software {PROTOCOL_VERSION}: install the software that belongs to the bitstream")
        if second.boot_nonce != first.boot_nonce:
            raise LinkError(f"{self._url}: the device was reset while the link was being opened: try again")
        self.number, self._next_sequence, self._synchronised = second.session, 0, True
        self._largest = second.largest_request
        self.in_flight = max(1, min(IN_FLIGHT, second.window // 2))
        self.buffer = (second.buffer_bytes, second.buffer_messages)
        return first

    def _another_session(self, *avoid: int) -> int:
        return self._numbers.choice([number for number in range(1, 256)
                                     if number != self.number and number not in avoid])

    def _hello(self, session: int) -> HelloResponse:
        message = Hello(session).encode()
        deadline = self.pipe.now() + self.timeout + self.pipe.wire_time(_WINDOW_ALLOWANCE)
        pause = _RETRY_MARGIN + self.pipe.wire_time(_WINDOW_ALLOWANCE)
        silent = False
        while self.pipe.now() < deadline:
            if silent:
                self.pipe.greet()  # perhaps the device listens at another rate
            silent = True
            self.pipe.send([message], resynchronise=True)
            retry = min(deadline, self.pipe.now() + pause)
            pause *= 2
            while (wait := retry - self.pipe.now()) > 0:
                for answer in self.received(wait):
                    if isinstance(answer, HelloResponse) and answer.session == session:
                        self.boot_nonce = answer.boot_nonce
                        return answer
        raise LinkTimeout(f"{self._url}: nothing answers within {self.timeout:g} s: check that the device runs, "
                          "and the rate and wiring of the line", outcome="not applied")

    # --- exchanges ---

    def exchange(self, operations: Sequence[Operation], *, ordered: bool) -> list[list[int]]:
        """Carry out `operations`; the words that each read. Raises `BusError`, `LinkTimeout`, `DeviceReset`."""
        if not self._synchronised:
            if self.pipe.lost:
                self.pipe.reopen()
            self.open()
        flights = plan(operations, largest=self._largest, max_words=self.pipe.max_response_words,
                       mixed=self.pipe.reliable, growing=not self.pipe.reliable)
        for flight in flights:
            flight.sequence = self._next_sequence
            self._next_sequence = (self._next_sequence + 1) % 256
            body = encode_operations([piece.operation for piece in flight.pieces])
            flight.message = Request(self.number or 0, flight.sequence, body).encode()
        # An exception or an interrupt leaves requests unanswered: the next exchange begins with a new session.
        self._synchronised = False
        self.unresolved = None
        run = _Exchange(self, flights, ordered=ordered)
        try:
            sent = run.run()
        except LinkLost as error:
            raise self.resolve(run.unanswered(), f"{error}", kind=LinkLost) from error
        self._next_sequence = (flights[0].sequence + sent) % 256 if flights else self._next_sequence
        self._synchronised = True
        return self._results(operations, flights[:sent])

    def _results(self, operations: Sequence[Operation], flights: list[Flight]) -> list[list[int]]:
        results: list[list[int]] = [[] for _ in operations]
        for flight in flights:
            response = flight.response
            assert response is not None
            if isinstance(response, Failure):
                raise self._server_failure(flight, response)
            if response.status != Status.DONE:
                raise self._failure(flight, response, [word for words in results for word in words])
            if len(response.words) != flight.words:
                raise LinkError(f"{self._url}: the device answered {len(response.words)} words where "
                                f"{flight.words} were asked for; none of them can be trusted")
            start = 0
            for piece in flight.pieces:
                count = read_count(piece.operation)
                results[piece.index] += response.words[start:start + count]
                start += count
        return results

    def _server_failure(self, flight: Flight, failure: Failure) -> LinkError:
        """What went wrong between a server and its device, or why the server refused."""
        try:
            document = json.loads(failure.document)
            kind, text, outcome = document["kind"], str(document["error"]), str(document.get("outcome", "unknown"))
        except (ValueError, KeyError, TypeError) as error:
            return LinkError(f"{self._url}: the server failed in a way that this software does not know: {error}")
        if flight.writes:
            self.unresolved = outcome
        message = f"{self._url}: {text}"
        match kind:
            case "DeviceBusy":
                return DeviceBusy(message)
            case "LinkTimeout":
                return LinkTimeout(message, outcome=outcome)
            case "LinkLost":
                return LinkLost(message, outcome=outcome)
            case "DeviceReset":
                self._synchronised = False  # the server forgot every session with it
                return DeviceReset(message, outcome=outcome)
        return LinkError(message)

    def _failure(self, flight: Flight, response: Response, read: Sequence[int]) -> LinkError:
        if response.status == Status.MALFORMED or response.index >= len(flight.pieces):
            return LinkError(f"{self._url}: the device does not understand operation {response.index} of a request "
                             f"(status {response.status}): install the software that belongs to the bitstream")
        piece = flight.pieces[response.index]
        before = sum(read_count(earlier.operation) for earlier in flight.pieces[:response.index])
        addresses = touched(piece.operation)
        if not is_write(piece.operation) and before <= len(response.words) < before + len(addresses):
            addresses = addresses[len(response.words) - before:][:1]
        verb = "written" if is_write(piece.operation) else "read"
        shown = ", ".join(f"{address:#07x}" for address in addresses[:4]) + (", ..." if len(addresses) > 4 else "")
        which = "the register at" if len(addresses) == 1 else "a register among"
        return BusError(f"{self._url}: {which} {shown} cannot be {verb}: the device has none there, or it refused",
                        index=piece.index, addresses=addresses, words=(*read, *response.words))

    # --- what a failed exchange leaves ---

    def resolve(self, flights: Sequence[Flight], reason: str, *,
                kind: type[LinkTimeout] | type[LinkLost] = LinkTimeout) -> LinkError:
        """The error for `flights` that stay unanswered: asks the device how far they went, if it still answers."""
        writes = [flight for flight in flights if flight.writes]
        number, nonce = self.number, self.boot_nonce
        self.unresolved = "unknown" if writes else None
        try:
            if self.pipe.lost:
                self.pipe.reopen()
            before = self.open()
        except LinkError as error:
            log.debug("%s: no hello after a failed exchange: %s", self._url, error)
            return self._given_up(kind, writes, f"{reason}, and the link could not be opened again")
        if before.boot_nonce != nonce:
            return DeviceReset(f"{self._url}: the device was reset ({reason}); its allocation is that of a reset",
                               outcome=self.unresolved or "not applied")
        if not before.previous_session:
            return self._given_up(kind, writes, f"{reason}, and who answers now knows nothing of it")
        if before.previous_session != number:
            return DeviceReset(f"{self._url}: another host used the link meanwhile ({reason}): close it",
                               outcome=self.unresolved or "not applied")
        # Sequences are modulo 256, at most a quarter of them open: those below the expected one were carried out.
        applied = [(before.previous_expected - flight.sequence - 1) % 256 < 128 for flight in writes]
        if writes:
            self.unresolved = "applied" if all(applied) else "unknown" if any(applied) else "not applied"
            reason += f"; {sum(applied)} of {len(applied)} unanswered requests that write were carried out"
        return self._given_up(kind, writes, reason)

    def _given_up(self, kind: type[LinkTimeout] | type[LinkLost], writes: Sequence[Flight], reason: str) -> LinkError:
        outcome = self.unresolved or "not applied"
        what = f"the outcome of what was written is: {outcome}" if writes else "nothing was being written"
        return kind(f"{self._url}: {reason}; {what}", outcome=outcome)

    # --- messages ---

    def received(self, timeout: float) -> Iterator[Message | None]:
        """Messages that arrived; windows are put aside, and what is damaged comes as None."""
        for raw in self.pipe.receive(timeout):
            try:
                message = None if raw is None else decode_message(raw)
            except MalformedMessage as error:
                log.debug("%s: %s", self._url, error)
                continue
            if isinstance(message, WindowPush):
                self._windows.append(message.payload)
                self.pushed_time += self.pipe.wire_time(len(raw or b""))
                continue
            yield message

    def windows(self, timeout: float) -> list[bytes]:
        """Window snapshots that arrived, waiting up to `timeout` for the first."""
        deadline = self.pipe.now() + timeout
        while True:
            wait = 0.0 if self._windows else max(0.0, deadline - self.pipe.now())
            for _ in self.received(wait):
                pass  # an answer to a request that was given up: nobody waits for it
            if self._windows or self.pipe.now() >= deadline:
                found = list(self._windows)
                self._windows.clear()
                return found

    def control(self, document: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send a control document; the simulation's answer."""
        self._control_sequence = (self._control_sequence + 1) % 256
        sequence = self._control_sequence
        self.pipe.send([Control(0, sequence, json.dumps(document).encode()).encode()])
        deadline = self.pipe.now() + timeout
        while (wait := deadline - self.pipe.now()) > 0:
            for message in self.received(wait):
                if isinstance(message, Control) and message.answer and message.sequence == sequence:
                    answer: dict[str, Any] = json.loads(message.document)
                    return answer
        raise LinkTimeout(f"{self._url}: the simulation did not answer {document!r} within {timeout:g} s")

    def close(self) -> None:
        """Let go of the pipe."""
        self._synchronised = False
        self.pipe.close()


class _Exchange:
    """One run of requests through a session; keeps what is in flight."""

    def __init__(self, session: Session, flights: list[Flight], *, ordered: bool) -> None:
        self._link = session
        self._pipe = session.pipe
        self._flights = flights
        self._ordered = ordered
        self._failed = False
        self._sent = 0
        self._again: deque[Flight] = deque()  # to be repeated, before anything new is sent
        self._resynchronise = False
        self._backoff = 1.0
        self._retry_at = self._quiet_until = self._deadline = self._room_at = 0.0
        self._pacer = Pacer(*session.buffer)
        self._pushed_before = session.pushed_time

    def unanswered(self) -> list[Flight]:
        """Requests that were sent and have no answer."""
        return [flight for flight in self._flights[:self._sent] if flight.response is None]

    def run(self) -> int:
        """Exchange until all requests, or all up to a failure, are answered; how many were sent."""
        while True:
            self._send_more()
            unanswered = self.unanswered()
            if not unanswered:
                return self._sent
            now = self._pipe.now()
            if now >= self._deadline:
                raise self._link.resolve(unanswered, f"no answer within {self._link.timeout:g} s")
            if now >= self._retry_at:
                self._backoff = min(2 * self._backoff, _MAX_BACKOFF)
                self._repeat(unanswered)
                continue
            until = min(self._retry_at, self._deadline, self._room_at)
            for message in self._link.received(max(0.0, until - now)):
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
        if self._failed or self._sent == len(self._flights):
            return None
        flight, unanswered = self._flights[self._sent], self.unanswered()
        # The device remembers sequences, so what counts is the distance to the first unanswered one.
        first = unanswered[0].sequence if unanswered else flight.sequence
        if (flight.sequence - first) % 256 >= self._link.in_flight or not self._may_send(flight, unanswered):
            return None
        return flight

    def _has_room(self, flight: Flight) -> bool:
        """Whether the device's buffer has room for `flight` when it arrives; else `_room_at` says when it will."""
        if self._pipe.reliable:
            return True
        self._pacer.delayed(self._link.pushed_time - self._pushed_before)
        self._pushed_before = self._link.pushed_time
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
        self._retry_at = math.inf if self._pipe.reliable else now + self._backoff * (on_wire + _RETRY_MARGIN)
        self._deadline = now + self._link.timeout + on_wire

    def _on_wire(self) -> float:
        """Seconds until everything in flight can be answered."""
        return self._pipe.wire_time(sum(flight.wire_bytes for flight in self.unanswered()) + _WINDOW_ALLOWANCE)

    def _repeat(self, flights: Sequence[Flight]) -> None:
        """Send `flights` again, from the oldest; what the device's buffer holds now is not known any more."""
        deadline = self._deadline
        self._link.repeated += len(flights)
        # Every request that a device skips is rejected by itself: those of before this repetition arrive until
        # then. Its answers come behind those of all that is in flight.
        self._quiet_until = self._pipe.now() + self._pipe.wire_time(sum(flight.size for flight in flights))
        self._again = deque(flights)
        self._resynchronise = True
        self._pacer = Pacer(*self._link.buffer)
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
        session = self._link.number
        match message:
            case None:
                self._repeat_damaged()
            case Reject(reason=RejectReason.CORRUPT):
                self._repeat_rejected()
            case Response(session=number) | Failure(session=number) if number == session:
                self._answered(message)
            case Reject(reason=RejectReason.NO_SESSION, session=number) if number == session:
                raise self._link.resolve(self.unanswered(), "the device no longer knows the session")
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
