"""Recording of a session: JSON lines, one an exchange, that `replay://` answers from.

The first line is a header with the schema version; each further line is one call on a `Transport` with its result,
at the level of operations, so that a record is the same for every kind of link.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from morphnic.errors import InputError, LinkError

from .operations import Operation, Read, ReadList, Write, WriteList

RECORD_SCHEMA = 1


def operation_to_json(operation: Operation) -> list[Any]:
    """A short, readable form of an operation."""
    match operation:
        case Read(address, count):
            return ["read", address, count]
        case ReadList(addresses):
            return ["read_list", *addresses]
        case Write(address, words):
            return ["write", address, *words]
        case WriteList(pairs):
            return ["write_list", *([address, word] for address, word in pairs)]


class Recorder:
    """Appends what happens on a transport to a file; each line is complete once written."""

    def __init__(self, path: Path, *, url: str, capabilities: Sequence[str]) -> None:
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise InputError(f"the record {path} cannot be written: {error.strerror}") from error
        self._put({"schema": RECORD_SCHEMA, "url": url, "capabilities": list(capabilities)})

    def executed(self, operations: Sequence[Operation], results: Sequence[Sequence[int]]) -> None:
        """An exchange that succeeded."""
        self._put({"execute": [operation_to_json(one) for one in operations], "words": [list(one) for one in results]})

    def failed(self, operations: Sequence[Operation], error: LinkError) -> None:
        """An exchange that raised."""
        document = {"kind": type(error).__name__, "message": str(error)}
        details = {name: getattr(error, name) for name in ("index", "addresses", "outcome") if hasattr(error, name)}
        self._put({"execute": [operation_to_json(one) for one in operations], "error": document | details})

    def windows(self, payloads: Sequence[bytes]) -> None:
        """Windows that were delivered, perhaps none."""
        self._put({"windows": [payload.hex() for payload in payloads]})

    def control(self, document: dict[str, Any], answer: dict[str, Any]) -> None:
        """A control document, or a grant of time, and its answer."""
        self._put({"control": document, "answer": answer})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _put(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._file.flush()
