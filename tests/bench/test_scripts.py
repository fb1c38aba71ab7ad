"""Every bench script starts: what it imports is there, and it says what it measures."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
SCRIPTS = sorted(path.name for path in BENCH.glob("[a-z]*.py"))

pytestmark = pytest.mark.slow  # a process each


def test_there_are_scripts():
    assert len(SCRIPTS) > 8


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_explains_itself(name):
    done = subprocess.run([sys.executable, BENCH / name, "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
