"""What carries messages between a host and a device: framed over bytes, or whole datagrams.

The protocol engine (`session`) knows only `MessagePipe`; time is the pipe's too, so that a test can run the engine
over a model of a line without waiting.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from morphnic.errors import LinkError, LinkLost

from .framing import FrameDecoder, encode_frame


class MessagePipe(ABC):
    """Carries whole messages, in order, perhaps losing or damaging some (`reliable` says that it does not).

    `send` and `receive` raise `LinkError` when the other side is gone: `LinkLost` where `reopen` may bring it back.
    """

    reliable = False
    #: Words that one request may ask for: what a repetition costs, and how long a pushed window waits.
    max_response_words = 255
    #: Whether the connection has ended; `reopen` makes a new one where that is possible.
    lost = False

    @abstractmethod
    def send(self, messages: Sequence[bytes], *, resynchronise: bool = False, greet: bool = False) -> None:
        """Send `messages`; `resynchronise` first ends whatever partial frame the device may hold.

        greet: before that, tell a device that does not answer at which rate this host speaks, where that can differ.
        """

    @abstractmethod
    def receive(self, timeout: float) -> list[bytes | None]:
        """Messages that arrived, waiting up to `timeout` seconds for the first; None for a damaged one."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the line."""

    def reopen(self, timeout: float) -> None:
        """Connect again as the same host, after `lost`; raises `LinkError` when that fails for `timeout` seconds."""
        raise LinkError("this link cannot be opened again by itself: open the device again")

    def fileno(self) -> int | None:
        """Descriptor that becomes readable when messages arrive, for whoever waits for several things at once."""
        return None

    def wire_time(self, message_bytes: int) -> float:
        """Seconds that `message_bytes` take on the line."""
        return 0.0

    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()


class ByteChannel(ABC):
    """A line of bytes, as a serial port gives it."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send all of `data`; raises `LinkError`."""

    @abstractmethod
    def read(self, timeout: float) -> bytes:
        """Bytes that arrived, waiting up to `timeout` seconds for the first; raises `LinkError`."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the port."""

    @abstractmethod
    def greet(self) -> None:
        """Send a break and 0x55, from which a device learns the rate of the line; raises `LinkError`."""

    def reopen(self, timeout: float) -> None:
        """Open the line again after a `LinkLost`; raises `LinkError` when that fails for `timeout` seconds."""
        raise LinkError("this line cannot be opened again by itself: open the device again")

    @property
    @abstractmethod
    def bytes_per_second(self) -> float:
        """Rate of the line."""

    def fileno(self) -> int | None:
        """Descriptor that becomes readable when bytes arrive."""
        return None


class FramedPipe(MessagePipe):
    """Messages over a `ByteChannel`, as COBS frames with a CRC-32C."""

    def __init__(self, channel: ByteChannel) -> None:
        self._channel = channel
        self._decoder = FrameDecoder()

    @property
    def damaged(self) -> int:
        """Frames from the device that were dropped."""
        return self._decoder.crc_errors + self._decoder.framing_errors

    def send(self, messages: Sequence[bytes], *, resynchronise: bool = False, greet: bool = False) -> None:
        """Send `messages`, each in its frame."""
        with self._noticing_loss():
            if greet:
                self._channel.greet()
            self._channel.write(b"\0" * resynchronise + b"".join(map(encode_frame, messages)))

    def receive(self, timeout: float) -> list[bytes | None]:
        """Messages of the frames that arrived."""
        deadline = self.now() + timeout
        while True:
            with self._noticing_loss():
                data = self._channel.read(max(0.0, deadline - self.now()))
            messages = list(self._decoder.feed(data))
            if messages or not data or self.now() >= deadline:
                return messages

    @contextlib.contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        try:
            yield
        except LinkLost:
            self.lost = True
            raise

    def reopen(self, timeout: float) -> None:
        """Open the line again; half a frame that came before the loss is forgotten."""
        self._channel.reopen(timeout)
        self._decoder = FrameDecoder()
        self.lost = False

    def wire_time(self, message_bytes: int) -> float:
        """Seconds that a message takes in its frame (1 % for COBS)."""
        return (1.01 * message_bytes + 7) / self._channel.bytes_per_second

    def fileno(self) -> int | None:
        """Descriptor of the line."""
        return self._channel.fileno()

    def close(self) -> None:
        """Let go of the port."""
        self._channel.close()
