"""Check what the machine must have before the environment is made; standard library only, any Python 3.

Prints everything that is missing at once, with the one line to type, and exits 3. Installs nothing.
"""

import importlib.util
import platform
import shutil
import sys
import sysconfig


def missing() -> "list[tuple[str, str]]":
    """Pairs of (what is missing, Debian package that brings it)."""
    found = []
    if not ((3, 11) <= sys.version_info[:2] <= (3, 13)):
        found.append((f"Python 3.11 to 3.13 (this is {platform.python_version()}; set PYTHON=...)", "python3"))
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        found.append(("Python's venv with ensurepip", "python3-venv"))
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if not shared_libpython():
        found.append(("a shared libpython (cocotb loads it)", f"libpython{version}"))
    for tool, package in (("g++", "g++"), ("make", "make")):
        if shutil.which(tool) is None:
            found.append((f"{tool} on the PATH", package))
    return found


def shared_libpython() -> bool:
    """True when the loader finds the shared library of this interpreter."""
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        import ctypes
        import os

        name = sysconfig.get_config_var("INSTSONAME") or ""
        for candidate in (name, os.path.join(sysconfig.get_config_var("LIBDIR") or "", name)):
            try:
                ctypes.CDLL(candidate)
            except OSError:
                continue
            return True
    return False


def main() -> int:
    """Report and return the exit code: 0 all there, 3 something is missing."""
    lacks = missing()
    if not lacks:
        return 0
    print("Morphnic cannot be set up on this machine yet. Missing:", file=sys.stderr)
    for what, _ in lacks:
        print(f"  - {what}", file=sys.stderr)
    print("On Debian or Ubuntu, type:", file=sys.stderr)
    print("  sudo apt-get install " + " ".join(sorted({package for _, package in lacks})), file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main())
