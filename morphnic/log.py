"""Logging: to stderr, as text or as one JSON object a line, with the window number as correlation id.

`with window(n):` marks everything logged inside, in this thread or task, as part of the decision about window
*n*: the same number stands in the device's snapshot, in the manager's decisions and in the agent's reports.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

__all__ = ["configure", "current_window", "window"]

SCHEMA = "1.0"
#: What LogRecord has by itself; everything else was given by `extra=` and belongs in a JSON line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "window"}

_window: ContextVar[int | None] = ContextVar("morphnic_window", default=None)


def current_window() -> int | None:
    """Number of the window that is being worked on, or None."""
    return _window.get()


@contextmanager
def window(number: int | None) -> Iterator[None]:
    """Give every record logged inside the window number as correlation id."""
    token = _window.set(number)
    try:
        yield
    finally:
        _window.reset(token)


class _WindowFilter(logging.Filter):
    """Stamps the window; on the handler, so that records of every logger get it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "window"):
            record.window = current_window()
        return True


class TextFormatter(logging.Formatter):
    """`08:41:07.250 INFO    offload_manager.loop [window 12] text`, in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        number = getattr(record, "window", None)
        mark = "" if number is None else f" [window {number}]"
        text = f"{time} {record.levelname:<7} {record.name}{mark} {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line; fields given as `extra=` are kept."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "schema": SCHEMA,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "window": getattr(record, "window", None),
            "message": record.getMessage(),
        }
        entry |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure(
    *, form: str = "text", verbosity: int = 0, stream: TextIO | None = None,
    quiet_level: int = logging.WARNING,
) -> None:
    """Send the root logger to stderr, replacing what an earlier call set.

    `verbosity` counts `-v`: warnings, then information, then everything. A service passes
    `quiet_level=logging.INFO`: its log is what it is read for.
    """
    if form not in ("text", "json"):
        raise ValueError(f"form must be 'text' or 'json', not {form!r}")
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(_WindowFilter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    level = max(logging.DEBUG, quiet_level - 10 * verbosity)
    root.setLevel(level)
    # Libraries that log each request at INFO would drown what the user asked to see.
    for chatty in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING if verbosity < 2 else level))
