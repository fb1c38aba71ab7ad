"""`host-agent watch` on a terminal: a pseudo-terminal of the test's own, and a manager that comes and goes."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from offload_manager import api
from tests.host_agent.manager import decision, event, window

ROOT = Path(__file__).parents[2]


class Terminal:
    """A process on a terminal of 200 x 60; `until(text)` waits for what it shows."""

    def __init__(self, *command):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
        # The size is the terminal's, not that of whatever runs the tests.
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=slave, stdout=slave, stderr=slave,
                                        env=environment | {"TERM": "xterm"}, start_new_session=True)
        os.close(slave)
        self.shown = ""

    def until(self, text, seconds=30):
        deadline = time.monotonic() + seconds
        while text not in self.shown and time.monotonic() < deadline:
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._master, 1 << 16).decode(errors="replace")
                except OSError:
                    break
        assert text in self.shown, self.shown[-2000:]

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(home, manager):
    made = Terminal(sys.executable, "-m", "morphnic", "agent", "watch")
    yield made
    made.close()


def test_terminal_view_follows_events_waits_for_the_manager_and_ends_with_ctrl_c(manager, terminal):
    manager.events = [
        event("window", api.WindowEvent(window=77, report=window(77))),
        event("decision", api.DecisionEvent(window=77, decision=decision(31, reason="a storm of small packets"))),
    ]
    terminal.until("vm3")
    terminal.until("window 77")
    terminal.until("a storm of small packets")
    terminal.until("the manager is away; waiting for it")
    terminal.process.send_signal(signal.SIGINT)
    terminal.until("interrupted")
    assert terminal.process.wait(timeout=30) == 130
    assert "Traceback" not in terminal.shown
