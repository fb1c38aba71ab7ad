"""The command line as a user types it, in an environment of the test's own."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from morphnic.main import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Own configuration, state and run directories; the run directory is short enough for a socket."""
    runtime = Path(tempfile.mkdtemp(prefix="m-"))
    for name in list(os.environ):
        if name.startswith("MORPHNIC_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "config" / "morphnic").mkdir(parents=True)
    yield tmp_path
    shutil.rmtree(runtime)


@pytest.fixture
def type_command(home):
    """Run `python -m morphnic ARGUMENTS` in a process of its own; gives its CompletedProcess."""
    def run(*arguments, variables=None, cwd=ROOT):
        return subprocess.run([sys.executable, "-m", "morphnic", *arguments], capture_output=True, text=True,
                              cwd=cwd, env=os.environ | (variables or {}), timeout=60, check=False)
    return run


@pytest.fixture
def typed(home, capsys, monkeypatch):
    """The same in this process, for the many cases that need no process of their own."""
    def run(*arguments, variables=None):
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        capsys.readouterr()
        with monkeypatch.context() as patch:
            for name, value in (variables or {}).items():
                patch.setenv(name, value)
            try:
                code = main(arguments)
            except SystemExit as end:
                code = end.code or 0
            finally:
                root.handlers[:] = handlers
                root.setLevel(level)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)
    return run


@pytest.fixture
def stand_in(home):
    """A device at sim://stand-in that answers register accesses."""
    from tests.morphnic.standin import StandIn

    device = StandIn()
    yield device
    device.finish()
