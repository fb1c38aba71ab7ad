"""Starts and stops the demo's processes: by ready files, not by sleeps, and by process id, not by name.

A process that ends before it is ready, or while it is needed, is an error that shows the last lines it wrote.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from morphnic.errors import EnvironmentFault

__all__ = ["Supervisor"]

STOP_SECONDS = 10.0
TAIL_LINES = 8


class Supervisor:
    """Owner of a handful of child processes; leaving it stops them, last started first.

    folder: where each process's log is kept. environment: added to this process's.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for name in reversed(list(self._children)):
            self.stop(name)

    def log(self, name: str) -> Path:
        """File with everything that the process wrote."""
        return self._folder / f"{name}.log"

    def start(self, name: str, module: str, arguments: Sequence[str], ready: Callable[[], bool],
              timeout: float = 60.0) -> None:
        """Run `python -m module` and return once `ready` says so; raises `EnvironmentFault` otherwise."""
        with open(self.log(name), "ab") as log:
            self._children[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self._environment)
        end = time.monotonic() + timeout
        while not ready():
            self.check(name)
            if time.monotonic() > end:
                raise EnvironmentFault(f"the {name} did not get ready within {timeout:g} s:\n{self._tail(name)}")
            time.sleep(0.02)

    def check(self, *names: str) -> None:
        """Raise `EnvironmentFault` if one of the processes (all of them if none is named) has ended."""
        for name in names or self._children:
            code = self._children[name].poll()
            if code is not None:
                raise EnvironmentFault(f"the {name} ended with code {code}; its last lines:\n{self._tail(name)}")

    def stop(self, name: str) -> None:
        """Ask the process to end, wait, and kill it if it does not."""
        child = self._children.pop(name)
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _tail(self, name: str) -> str:
        lines = self.log(name).read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join(f"    {line}" for line in lines) or "    (it wrote nothing)"
