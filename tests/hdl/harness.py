"""cocotb on Verilator under pytest: a component is built once (and kept), each test runs in its own folder.

`run_cocotb` fails when a cocotb test fails, when there is none, and when the simulation ends without a report: the
runner itself tells none of these.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from cocotb_tools.runner import get_results, get_runner

from morphnic.errors import BuildError
from sim.build import locked, to_verilog
from sim.toolchain import Toolchain, cache_directory, find_toolchain, package_version

BUILD_ARGS = ["-Wno-fatal", "-Wno-lint", "-Wno-style", "--x-assign", "fast", "--x-initial", "fast"]
LAST_LINES = 40


def run_cocotb(component: Any, test_module: str, tmp_path: Path, *, seed: int = 1,
               parameters: Mapping[str, object] | None = None, testcase: str | None = None) -> None:
    """Run the cocotb tests of `test_module` on `component`.

    parameters: reach the tests as environment variables. seed: of cocotb's random numbers; printed.
    """
    tools = find_toolchain()
    with mock.patch.dict(os.environ, tools.environment()):
        folder = _built(to_verilog(component), tools)
        print(f"{test_module}: seed {seed}, model {folder.name}")
        runner = get_runner("verilator")
        results, log = tmp_path / "results.xml", tmp_path / "simulation.log"
        try:
            runner.test(test_module=test_module, hdl_toplevel="top", hdl_toplevel_lang="verilog", build_dir=folder,
                        test_dir=tmp_path, results_xml=str(results), seed=seed, testcase=testcase,
                        extra_env={key: str(value) for key, value in (parameters or {}).items()}, log_file=log)
        except (RuntimeError, SystemExit) as error:
            # The report, if there is one, says more than the exit code.
            if not results.exists():
                pytest.fail(f"the simulation ended without a report ({error}), seed {seed}:\n{_tail(log)}")
    count, failed = get_results(results)
    if failed or not count:
        pytest.fail(f"{failed} of {count} cocotb tests of {test_module} failed, seed {seed}:\n{_tail(log)}")


def _tail(log: Path) -> str:
    if not log.exists():
        return "(no output)"
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
    return "\n".join(text.splitlines()[-LAST_LINES:])


def _built(verilog: str, tools: Toolchain) -> Path:
    """Folder with the simulation of `verilog`, from the cache or newly built."""
    digest = hashlib.sha256()
    for part in (verilog, tools.versions, repr(BUILD_ARGS), package_version("cocotb") or "", sys.prefix):
        digest.update(part.encode() + b"\0")
    folder = cache_directory() / "cocotb" / digest.hexdigest()[:32]
    with locked(folder.with_suffix(".lock"), lambda: print("waiting for another build of the same component")):
        if not (folder / "top").exists():
            _build(folder, verilog)
    return folder


def _build(folder: Path, verilog: str) -> None:
    work = Path(tempfile.mkdtemp(prefix=folder.name + ".", suffix=".tmp", dir=folder.parent))
    try:
        (work / "top.v").write_text(verilog)
        log = work / "build.log"
        try:
            get_runner("verilator").build(sources=[work / "top.v"], hdl_toplevel="top", build_dir=work, always=True,
                                          build_args=BUILD_ARGS, log_file=log)
        except (RuntimeError, SystemExit) as error:
            raise BuildError(f"the cocotb simulation cannot be built ({error}):\n{_tail(log)}") from error
        for left in (*work.glob("*.o"), *work.glob("*.gch")):
            left.unlink()
        os.replace(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
