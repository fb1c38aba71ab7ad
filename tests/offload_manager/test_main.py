"""The manager's command line: flags, sockets, exit codes; nothing is a traceback."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphnic.errors import EnvironmentFault, InputError
from offload_manager import fault
from offload_manager.main import listening, main
from offload_manager.settings import Listen
from offload_manager.timing import DecisionLatency


@pytest.fixture(autouse=True)
def _own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """The command line sets up the root logger; the next test must not log to this one's stderr."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(("text", "host", "port"), [
    ("127.0.0.1:80", "127.0.0.1", 80), ("8000", "127.0.0.1", 8000), ("localhost:0", "localhost", 0),
    ("[::1]:8", "::1", 8), ("127.3.4.5:8", "127.3.4.5", 8),
])
def test_listen_address(text: str, host: str, port: int) -> None:
    assert Listen.parse(text) == Listen(host, port)


@pytest.mark.parametrize(("text", "what"), [
    ("0.0.0.0:80", "loopback only"), ("example.org:80", "loopback only"), ("127.0.0.1:99999", "port 0 to 65535"),
    ("127.0.0.1", "port 0 to 65535"), ("unix:", "without a path"), ("", "HOST:PORT"),
])
def test_listen_address_that_is_refused(text: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        Listen.parse(text)


@pytest.mark.parametrize(("text", "cycles"), [
    ("0", 0), ("50us", 5000), ("500us", 50_000), ("5ms", 500_000), ("0.5 ms", 50_000), ("10ns", 1),
])
def test_decision_latency(text: str, cycles: int) -> None:
    latency = DecisionLatency.parse(text)
    assert latency.cycles(100_000_000, 123) == cycles
    assert DecisionLatency.parse(str(latency)) == latency


@pytest.mark.parametrize("text", ["50", "fast", "-1us", "2s", "5 m", ""])
def test_decision_latency_that_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="decision latency must be"):
        DecisionLatency.parse(text)


@pytest.mark.parametrize(("flags", "code", "what"), [
    (["--listen", "0.0.0.0:1"], 1, "loopback only"),
    (["--window", "5"], 1, "--window must be in 1024"),
    (["--largest-packet-pages", "17"], 1, "--largest-packet-pages"),
    (["--decision-latency", "soon"], 1, "decision latency must be"),
    (["--nonsense"], 1, "unrecognized arguments"),
    (["--listen", "127.0.0.1:0", "--device", "sim://nobody"], 1, "no simulated device 'nobody' runs"),
    (["--listen", "127.0.0.1:0", "--device", "http://x"], 1, "a device URL begins with"),
    (["--listen", "127.0.0.1:0", "--store", "/dev/null/store.db"], 3, "name another file with --store"),
    (["--log-format", "xml"], 1, "log_format"),
])
def test_wrong_command_line_is_one_message_and_an_exit_code(
    capfd: pytest.CaptureFixture[str], flags: list[str], code: int, what: str,
) -> None:
    assert main(flags) == code
    error = capfd.readouterr().err
    assert what in error
    assert "Traceback" not in error


def test_port_in_use_names_the_port_and_the_remedy(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--listen", f"127.0.0.1:{port}", "--device", "sim://nobody"]) == 3
    error = capfd.readouterr().err
    assert f"port {port} of 127.0.0.1 is in use" in error
    assert "--listen" in error


def test_unix_socket_in_use_is_refused_and_a_stale_one_replaced(tmp_path: Path) -> None:
    path = tmp_path / "manager.sock"
    with listening(Listen(path=path)):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(EnvironmentFault, match="is in use"), listening(Listen(path=path)):
            pass
    assert not path.exists()
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    with listening(Listen(path=path)):
        pass


def test_file_at_the_place_of_the_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("mine")
    with pytest.raises(EnvironmentFault), listening(Listen(path=path)):
        pass
    assert path.read_text() == "mine"


def test_help_needs_no_device_and_explains_each_flag() -> None:
    done = subprocess.run([sys.executable, "-m", "offload_manager", "--help"], capture_output=True, text=True,
                          check=False, timeout=60)
    assert done.returncode == 0
    for flag in ("--device", "--listen", "--store", "--policy", "--decision-latency", "--window", "--ready-file"):
        assert flag in done.stdout


@pytest.mark.parametrize("text", ["stage", "stage:0", "stage:x", "nowhere:1"])
def test_fault_that_names_no_point_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(fault.VARIABLE, text)
    with pytest.raises(InputError, match="POINT:COUNT"):
        fault.arm_from_environment()


def test_fault_point_kills_at_its_count() -> None:
    script = ("from offload_manager.fault import *; arm_from_environment()\n"
              "for n in range(9): print(n, flush=True); fault_point('check'); fault_point('commit')")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60,
                          env={**os.environ, "MORPHNIC_FAULT": "commit:3"})
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "0\n1\n2\n"


def test_every_fault_point_is_named_in_the_code_once_or_more() -> None:
    root = Path(fault.__file__).parent
    used = set(re.findall(r'fault_point\("(\w+)"\)', "".join(p.read_text() for p in root.glob("*.py"))))
    assert used == set(fault.POINTS)
