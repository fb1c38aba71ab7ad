"""Building models: cache, concurrency, and errors that name what is wrong."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from morphnic.errors import BuildError, EnvironmentFault
from sim import toolchain
from sim.build import Harness, Variant, build, cache_key, cached_verilog, read_ports
from sim.toolchain import find_toolchain

VERILOG = """module top(clk, a__b, interrupt);
  input clk; input [7:0] a__b; output reg [70:0] interrupt;
  always @(posedge clk) interrupt <= {63'b0, a__b};
endmodule
"""
SOURCE = '#include "Vtop.h"\nextern "C" int answer() { return 42; }\n'


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, but for Verilator's runtime, which is large and the same for all."""
    real = toolchain.cache_directory() / "runtime"
    real.mkdir(exist_ok=True)
    folder = tmp_path / "cache"
    (folder / "morphnic").mkdir(parents=True)
    (folder / "morphnic" / "runtime").symlink_to(real)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "morphnic"


def harness(tmp_path: Path, text: str = SOURCE) -> Harness:
    path = tmp_path / "small.cpp"
    path.write_text(text)
    return Harness("small", (path,))


def quiet(_: str) -> None:
    pass


@pytest.mark.slow
def test_model_is_built_once_and_found_again(cache, tmp_path):
    first = build(VERILOG, harness(tmp_path), progress=quiet)
    again = build(VERILOG, harness(tmp_path), progress=quiet)
    assert (first.built, again.built) == (True, False)
    assert first.library == again.library
    assert [(port.name, port.direction, port.width) for port in first.ports] == [
        ("a__b", "in", 8), ("clk", "in", 1), ("interrupt", "out", 71)]
    assert [path.name for path in (cache / "models").iterdir() if path.is_dir()] == [first.key]


def test_key_changes_with_everything_that_makes_the_model(tmp_path):
    tools, base = find_toolchain(), harness(tmp_path)
    keys = [cache_key(VERILOG, base, Variant.FAST, "top", tools),
            cache_key(VERILOG + "\n", base, Variant.FAST, "top", tools),
            cache_key(VERILOG, base, Variant.TRACE, "top", tools),
            cache_key(VERILOG, harness(tmp_path, SOURCE + "\n"), Variant.FAST, "top", tools),
            cache_key(VERILOG, Harness("small", base.sources, version="2"), Variant.FAST, "top", tools)]
    assert len(set(keys)) == len(keys)


@pytest.mark.slow
def test_two_processes_build_one_model(cache, tmp_path):
    path = harness(tmp_path).sources[0]
    script = ("import sys; from pathlib import Path; from sim.build import Harness, build; "
              f"m = build({VERILOG!r}, Harness('small', (Path({str(path)!r}),))); print(m.built)")
    runs = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)]
    answers = [run.communicate(timeout=200)[0].strip() for run in runs]
    assert sorted(answers) == ["False", "True"]
    assert not list((cache / "models").glob("*.tmp"))


@pytest.mark.slow
def test_compiler_error_is_shown_and_leaves_nothing(cache, tmp_path):
    with pytest.raises(BuildError, match=r"cannot compile small\.cpp.*\n(.*\n)*.*no_such_thing") as caught:
        build(VERILOG, harness(tmp_path, SOURCE + "int x = no_such_thing;\n"), progress=quiet)
    assert caught.value.exit_code == 2
    assert [path for path in (cache / "models").iterdir() if path.is_dir()] == []


def test_verilog_error_is_shown(cache, tmp_path):
    with pytest.raises(BuildError, match=r"cannot translate the Verilog.*\n(.*\n)*.*syntax error"):
        build("module top(clk; endmodule", harness(tmp_path), progress=quiet)


def test_missing_and_broken_compilers_are_named(monkeypatch, tmp_path):
    find_toolchain.cache_clear()
    try:
        monkeypatch.setenv("CXX", "no-such-compiler")
        with pytest.raises(EnvironmentFault, match=r"the C\+\+ compiler no-such-compiler: sudo apt-get install g\+\+"):
            find_toolchain()
        broken = tmp_path / "broken"
        broken.write_text("#!/bin/sh\necho too old >&2\nexit 1\n")
        broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CXX", str(broken))
        with pytest.raises(EnvironmentFault, match=r"cannot build C\+\+20: too old"):
            find_toolchain()
        monkeypatch.delenv("CXX")
        monkeypatch.setenv("PATH", os.defpath if "bin" not in os.defpath else str(tmp_path))
        with pytest.raises(EnvironmentFault) as caught:
            find_toolchain()
        assert "g++" in str(caught.value)
        assert "make" in str(caught.value)
        assert caught.value.exit_code == 3
    finally:
        find_toolchain.cache_clear()


def test_header_without_ports_is_refused():
    with pytest.raises(BuildError, match="no ports"):
        read_ports("class Vtop {};")


@pytest.mark.usefixtures("cache")
def test_verilog_is_made_once_for_the_same_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, made = tmp_path / "part.py", []
    source.write_text("one")

    def make() -> str:
        made.append(source.read_text())
        return f"module {made[-1]}; endmodule"

    def ask() -> str:
        monkeypatch.setattr("sim.build._STARTED", time.time() + 1)   # as a program that is started now
        return cached_verilog(["key"], [source], make, lambda _: None)

    assert ask() == ask() == "module one; endmodule"
    source.write_text("two")
    assert ask() == "module two; endmodule"
    assert made == ["one", "two"]


def test_verilog_of_a_source_that_changed_while_the_program_ran_is_not_kept(cache: Path, tmp_path: Path) -> None:
    source = tmp_path / "part.py"
    source.write_text("after the start of this process")
    with pytest.raises(BuildError, match=r"part\.py was changed while this program ran.*start it again"):
        cached_verilog(["key"], [source], lambda: "module old; endmodule", lambda _: None)
    assert not list((cache / "verilog").glob("*.v"))
