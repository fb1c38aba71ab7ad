"""A simulated device as a process, for the tests that need real gateware under the manager."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

BUILD_TIMEOUT_S = 900.0  # the model is built once, on a machine that may be busy with others


@dataclass(frozen=True)
class SimulatedDevice:
    """A running device in lockstep; `environment` lets a child process find it."""

    url: str
    environment: dict[str, str]
    log: Path


@contextlib.contextmanager
def simulate(folder: Path, name: str, *flags: str) -> Iterator[SimulatedDevice]:
    """Start `sim.server` and wait for its ready line; stop it at the end."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "PYTHONPATH": os.getcwd()}
    log = folder / f"{name}.log"
    reader, writer = os.pipe()
    with log.open("w") as output, subprocess.Popen(
            [sys.executable, "-m", "sim.server", "--mode", "lockstep", "--name", name, "--no-pty", "--stop-on-eof",
             "--ready-fd", str(writer), *flags],
            stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment, pass_fds=[writer]) as process:
        os.close(writer)
        try:
            os.set_blocking(reader, False)
            end = time.monotonic() + BUILD_TIMEOUT_S
            while not _read(reader):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, f"no device within {BUILD_TIMEOUT_S} s: {log.read_text()}"
                time.sleep(0.05)
            yield SimulatedDevice(f"sim://{name}", environment, log)
        finally:
            os.close(reader)
            process.terminate()
            process.communicate(timeout=30)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except BlockingIOError:
        return b""


@pytest.fixture(scope="module")
def simulated_device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedDevice]:
    """One simulated device for a module of tests."""
    folder = tmp_path_factory.mktemp("s")  # a short path: it holds a Unix socket
    with pytest.MonkeyPatch.context() as patch, simulate(folder, "dev") as device:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield device
