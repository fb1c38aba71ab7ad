"""The protocol engine of the host: sessions, sequence numbers, repetition, and what became of a write.

A session number left over from an earlier host may be the one chosen here, and the device then goes on with old
sequence numbers: the second of two hellos with different numbers is always new, so opening takes two.
"""

from __future__ import annotations

import json
import logging
import random
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from morphnic.errors import DeviceBusy, LinkError, LinkLost, LinkTimeout

from .exchange import RETRY_MARGIN, WINDOW_ALLOWANCE, Exchange, GivenUp
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
from .outcome import NOT_APPLIED, UNKNOWN, History, Mark, before, outcome_of
from .pipe import MessagePipe
from .planning import Flight, plan
from .transport import BusError

log = logging.getLogger(__name__)

IN_FLIGHT = 64
KEPT_WINDOWS = 4096


class DeviceReset(LinkError):
    """The device was reset, or another host took its session, while requests were unanswered; see `outcome`."""

    def __init__(self, message: str, *, outcome: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class Session:
    """Exchanges with one device over a `MessagePipe`.

    timeout: seconds without an answer, beyond the time on the wire, after which an exchange gives up.
    unresolved: outcome of what the last failed exchange was to write; None when that was nothing.
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
        self._history = History()

    # --- opening ---

    def _ready(self) -> None:
        """Be in a session: after a failure in a new one, on a connection that is made again where it was lost."""
        if self.pipe.lost:
            self._synchronised = False
            self.pipe.reopen(self.timeout)
        if not self._synchronised:
            self.open()

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
        for hello in (first, second):
            self._history.learn(hello)
        return first

    def _another_session(self, *avoid: int) -> int:
        """A number for a new session: one that settles no old mark by mistake, while there are such."""
        taken = {self.number, *avoid}
        free = set(range(1, 256)) - taken
        return self._numbers.choice(sorted(free - self._history.sessions() or free))

    def _hello(self, session: int) -> HelloResponse:
        message = Hello(session).encode()
        deadline = self.pipe.now() + self.timeout + self.pipe.wire_time(WINDOW_ALLOWANCE)
        pause = RETRY_MARGIN + self.pipe.wire_time(WINDOW_ALLOWANCE)
        silent = False
        while self.pipe.now() < deadline:
            self.pipe.send([message], resynchronise=True, greet=silent)  # perhaps it listens at another rate
            silent = True
            retry = min(deadline, self.pipe.now() + pause)
            pause *= 2
            while (wait := retry - self.pipe.now()) > 0:
                for answer in self.received(wait):
                    if isinstance(answer, HelloResponse) and answer.session == session:
                        self.boot_nonce = answer.boot_nonce
                        return answer
        raise LinkTimeout(f"{self._url}: nothing answers within {self.timeout:g} s: check that the device runs, "
                          "the rate and wiring of the line, and that its link was not built to speak UARTBone",
                          outcome="not applied")

    # --- exchanges ---

    def exchange(self, operations: Sequence[Operation], *, ordered: bool) -> list[list[int]]:
        """Carry out `operations`; the words that each read. Raises `BusError`, `LinkTimeout`, `DeviceReset`."""
        self._ready()
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
        run = Exchange(self, flights, ordered=ordered)
        try:
            sent = run.run()
        except (GivenUp, LinkLost) as error:
            kind = LinkLost if isinstance(error, LinkLost) else LinkTimeout
            raise self._resolve(run, f"{error}", kind) from error
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

    def mark(self) -> Mark:
        """Where the next request will stand; whoever keeps it may ask for its `outcome`, this host or another."""
        self._ready()
        assert self.number is not None
        assert self.boot_nonce is not None
        return Mark(self.boot_nonce, self.number, self._next_sequence)

    def outcome(self, mark: Mark) -> str:
        """What became of the request at `mark`, at most 128 requests ago: applied, not applied, unknown."""
        self._ready()
        if (mark.boot_nonce, mark.session) == (self.boot_nonce, self.number):
            return outcome_of([before(mark.sequence, self._next_sequence)])
        return outcome_of([self._history.carried_out(mark)])

    def _resolve(self, run: Exchange, reason: str, kind: type[LinkTimeout] | type[LinkLost]) -> LinkError:
        """The error for a run that was given up: asks the device how far it went, if it still answers."""
        writes = [flight for flight in run.flights if flight.writes]
        number, nonce = self.number, self.boot_nonce
        self.unresolved = outcome_of(map(run.fate, writes)) if writes else None
        try:
            if self.pipe.lost:
                self.pipe.reopen(self.timeout)
            told = self.open()
        except LinkError as error:
            log.debug("%s: no hello after a failed exchange: %s", self._url, error)
            return self._given_up(kind, f"{reason}, and the link could not be opened again")
        if told.boot_nonce != nonce:
            # Whatever was applied is gone with the rest of the device's state.
            self.unresolved = UNKNOWN if self.unresolved not in (None, NOT_APPLIED) else self.unresolved
            return DeviceReset(f"{self._url}: the device was reset ({reason}); its allocation is that of a reset",
                               outcome=self.unresolved or NOT_APPLIED)
        if not told.previous_session:
            return self._given_up(kind, f"{reason}, and who answers now knows nothing of it")
        if told.previous_session != number:
            return DeviceReset(f"{self._url}: another host used the link meanwhile ({reason}): close it",
                               outcome=self.unresolved or NOT_APPLIED)
        if writes:
            fates = [before(flight.sequence, told.previous_expected) if (known := run.fate(flight)) is None else known
                     for flight in writes]
            self.unresolved = outcome_of(fates)
            reason += f"; {fates.count(True)} of {len(fates)} requests that write were carried out"
        return self._given_up(kind, reason)

    def _given_up(self, kind: type[LinkTimeout] | type[LinkLost], reason: str) -> LinkError:
        outcome = self.unresolved or NOT_APPLIED
        what = f"the outcome of what was written is: {outcome}" if self.unresolved else "nothing was being written"
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
        if self.pipe.lost:
            self._ready()
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
