"""`replay://FILE`: a recorded session, answered from its record without a device.

The same calls in the same order get the same results; a call that departs from the record raises `ReplayDeparture`
with the line. Nothing is guessed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from morphnic.errors import InputError, LinkError, LinkLost, LinkTimeout

from .operations import Operation
from .recording import RECORD_SCHEMA, operation_to_json
from .session import DeviceReset
from .transport import BusError, Capability, Transport


class ReplayDeparture(LinkError):
    """A replayed session did what the recorded one did not."""


class ReplayTransport(Transport):
    """Answers from a record."""

    def __init__(self, path: Path, *, url: str, timeout: float = 1.0, writer: bool = False) -> None:
        super().__init__(url, timeout=timeout, writer=writer)
        self._path = path
        self._lines = self._load()
        self._position = 1
        try:
            header = next(self._lines)
        except StopIteration:
            raise InputError(f"the record {path} is empty") from None
        if header.get("schema") != RECORD_SCHEMA:
            raise InputError(f"the record {path} has schema {header.get('schema')!r}, this software knows "
                             f"{RECORD_SCHEMA}: record the session again")
        self.capabilities = Capability(0)
        for name in header.get("capabilities", ["REGISTERS"]):
            if name not in Capability.__members__:
                raise InputError(f"the record {path} names an unknown capability {name!r}")
            self.capabilities |= Capability[name]

    def _load(self) -> Iterator[dict[str, Any]]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"the record {self._path} cannot be read: {reason}; record a session with `morphnic test "
                             "--record FILE`") from error
        for number, line in enumerate(text.splitlines(), 1):
            try:
                document = json.loads(line)
            except ValueError as error:
                raise InputError(f"{self._path}:{number}: not a line of JSON: {error}") from error
            if not isinstance(document, dict):
                raise InputError(f"{self._path}:{number}: a line must be a JSON object, not {line[:40]!r}")
            yield document

    def _next(self, kind: str, asked: Any) -> dict[str, Any]:
        """The next line, which must record `asked` under `kind`."""
        line = next(self._lines, None)
        self._position += 1
        where = f"{self._path}:{self._position}"
        if line is None:
            raise ReplayDeparture(f"{where}: the record ends here; the session went on with {kind} {asked!r}")
        if kind not in line:
            raise ReplayDeparture(f"{where}: the session does {kind} {asked!r}, the record {next(iter(line))}")
        if kind != "windows" and line[kind] != asked:
            raise ReplayDeparture(f"{where}: the session does {kind} {asked!r}, the record {line[kind]!r}")
        return line

    def _execute(self, operations: Sequence[Operation], *, ordered: bool) -> list[list[int]]:
        line = self._next("execute", [operation_to_json(operation) for operation in operations])
        if "error" in line:
            raise self._recorded_error(line["error"])
        words: list[list[int]] = line["words"]
        return words

    def _recorded_error(self, error: dict[str, Any]) -> LinkError:
        message = f"{error['message']} (replayed)"
        if error["kind"] == "BusError":
            return BusError(message, index=error["index"], addresses=error["addresses"])
        with_outcome = {"LinkTimeout": LinkTimeout, "LinkLost": LinkLost, "DeviceReset": DeviceReset}
        if error["kind"] in with_outcome:
            return with_outcome[error["kind"]](message, outcome=error["outcome"])
        return LinkError(message)

    def _windows(self, timeout: float) -> list[bytes]:
        return [bytes.fromhex(payload) for payload in self._next("windows", None)["windows"]]

    def _control(self, document: dict[str, Any], timeout: float) -> dict[str, Any]:
        answer: dict[str, Any] = self._next("control", document)["answer"]
        return answer

    def _advance(self, cycles: int) -> dict[str, Any]:
        answer: dict[str, Any] = self._next("control", {"advance": cycles})["answer"]
        return answer

    def _close(self) -> None:
        pass
