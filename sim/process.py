"""Start a simulated device as a process of its own, and stop it: for the demo, benches and tests."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from types import TracebackType

from device_link.rundir import ReadyFile, device_dir, read_ready
from morphnic.errors import EnvironmentFault

START_SECONDS = 900.0  # the first start builds the model
STOP_SECONDS = 20.0


class SimProcess:
    """A running simulated device. It is ready when the constructor returns, and stops with this process.

    arguments: options of `python -m sim.server`, without the name.
    """

    def __init__(self, name: str, arguments: Sequence[str] = (), *, timeout: float = START_SECONDS) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115  closed in stop()
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "sim.server", "--name", name, "--ready-fd", str(writer), "--stop-on-eof",
                   *arguments]
        try:
            # The child reads stdin to its end: it stops when this process dies, however that happens.
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=self._errors, pass_fds=[writer])
        finally:
            os.close(writer)
        try:
            self._wait(reader, timeout)
        except BaseException:
            self.kill()
            raise
        finally:
            os.close(reader)
        self.ready: ReadyFile = read_ready(device_dir(name))

    def _wait(self, reader: int, timeout: float) -> None:
        """Until the line that says ready; the pipe ends without it when the process fails."""
        if not select.select([reader], [], [], timeout)[0]:
            raise EnvironmentFault(f"the simulated device {self.name!r} was not ready within {timeout:g} s")
        if not os.read(reader, 64):
            self._process.wait(STOP_SECONDS)
            raise EnvironmentFault(f"the simulated device {self.name!r} did not start: {self.errors().strip()}")

    def errors(self) -> str:
        """What it wrote to stderr so far."""
        self._errors.seek(0)
        return self._errors.read()

    @property
    def url(self) -> str:
        """Its device URL."""
        return f"sim://{self.name}"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def stop(self) -> int:
        """Stop it in order (SIGTERM); the exit code."""
        self._process.terminate()
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._close()
        return code

    def kill(self) -> None:
        """Kill it: nothing is cleaned up, as in a crash."""
        self._process.kill()
        self._process.wait(STOP_SECONDS)
        self._close()

    def _close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._errors.close()

    def __enter__(self) -> SimProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._process.poll() is None:
            self.stop()
