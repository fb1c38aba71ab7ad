"""`morphnic regs export`: the register map for the tools of others, without a device."""

import subprocess
import sys

import pytest

from device_link.csr_csv import csr_csv
from device_link.registers import register_map
from gateware.config import DeviceConfig


def typed(*arguments):
    return subprocess.run([sys.executable, "-m", "morphnic", "regs", "export", *arguments], capture_output=True,
                          text=True, check=False)


def test_map_is_written_to_the_file_or_to_standard_output(tmp_path):
    expected = csr_csv(register_map(), DeviceConfig(tenants=3, uartbone=True))
    path = tmp_path / "csr.csv"
    written = typed("--csr-csv", str(path), "--set", "tenants=3")
    assert (written.returncode, written.stdout) == (0, "")
    assert path.read_text() == expected
    assert typed("--csr-csv", "-", "--set", "tenants=3").stdout == expected


@pytest.mark.parametrize(("arguments", "text"), [
    ([], "say what to write: --csr-csv FILE"),
    (["--csr-csv", "-", "rm"], "export writes the whole map, not 'rm'"),
    (["--csr-csv", "-", "--set", "tenants=1"], r"tenants must be in 2..64, not 1"),
    (["--csr-csv", "/nowhere/csr.csv"], "/nowhere/csr.csv cannot be written: No such file or directory"),
])
def test_what_cannot_be_exported_is_told_in_one_line(arguments, text):
    run = typed(*arguments)
    assert run.returncode == 1
    assert text in run.stderr
    assert "Traceback" not in run.stderr
