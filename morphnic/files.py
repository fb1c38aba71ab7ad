"""Files that are whole or not there: whoever reads `path` meanwhile, or after a kill or a power cut, finds the old text
or the new one, and nothing is left over of one that could not be written."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

__all__ = ["replace_text"]


def replace_text(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write `text` to `path` by way of a file beside it, on disk before it takes the name. Raises `OSError`."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())   # else a power cut may leave the name with an empty file
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
