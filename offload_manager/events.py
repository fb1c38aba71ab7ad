"""Server-sent events: from the owner's thread to any number of listeners, slow ones included.

A listener that does not keep up loses its oldest events, never the owner's time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping

from offload_manager.api import DecisionEvent, Document, LoopEvent, WindowEvent

KEPT = 256
HEARTBEAT_S = 15.0
_KINDS: dict[str, type[Document]] = {"window": WindowEvent, "decision": DecisionEvent, "loop": LoopEvent}


class EventHub:
    """Publishes events to listeners that may live on another thread's event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[asyncio.Queue[str | None], asyncio.AbstractEventLoop] = {}
        self._closed = False

    @property
    def has_listeners(self) -> bool:
        """Whether anybody listens: nothing is formatted for nobody."""
        return bool(self._listeners)

    def publish(self, kind: str, window: int | None, fields: Mapping[str, object]) -> None:
        """Send an event; `id:` is the window number, the same that stands in logs and decisions."""
        with self._lock:
            listeners = list(self._listeners.items())
        if not listeners:
            return
        document = _KINDS[kind].model_validate({"window": window, **fields})
        identity = "" if window is None else f"id: {window}\n"
        self._send(listeners, f"event: {kind}\n{identity}data: {document.model_dump_json()}\n\n")

    def close(self) -> None:
        """End every stream, so that a server can stop."""
        with self._lock:
            self._closed = True
            listeners = list(self._listeners.items())
        self._send(listeners, None)

    async def listen(self) -> AsyncIterator[str]:
        """Events as text, with a comment every few seconds so that a dead connection is noticed."""
        inbox: asyncio.Queue[str | None] = asyncio.Queue()
        with self._lock:
            if self._closed:
                return
            self._listeners[inbox] = asyncio.get_running_loop()
        try:
            yield ": connected\n\n"
            while True:
                try:
                    event = await asyncio.wait_for(inbox.get(), HEARTBEAT_S)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if event is None:
                    return
                yield event
        finally:
            with self._lock:
                self._listeners.pop(inbox, None)

    @staticmethod
    def _send(
        listeners: list[tuple[asyncio.Queue[str | None], asyncio.AbstractEventLoop]], event: str | None,
    ) -> None:
        for inbox, loop in listeners:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_put, inbox, event)


def _put(inbox: asyncio.Queue[str | None], event: str | None) -> None:
    if inbox.qsize() >= KEPT:
        inbox.get_nowait()
    inbox.put_nowait(event)
