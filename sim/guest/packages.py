"""What a guest needs and few machines have: QEMU >= 10.1 (the first with vfio-user), virtiofsd, and a kernel.

They come from Debian 13 and its backports, out of the archive that this machine's apt uses, are unpacked into the cache
and installed nowhere. apt does the work, with a state of its own there: it checks the signature of Debian's lists, and
each package's SHA-256 against them. Ordinary users may. The programs run by their own loader and libraries: this
machine's may be older.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from morphnic.errors import EnvironmentFault
from sim.toolchain import cache_directory

FETCH = "python -m sim.guest.packages"
VERSION = "1"  # of what is below: another one is fetched anew
SUITES = ("trixie", "trixie-backports")
PACKAGES = ("qemu-system-x86", "virtiofsd", "linux-image-cloud-amd64")
FROM_BACKPORTS = "qemu-* seabios"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_FETCH_SECONDS = 900.0


@dataclass(frozen=True)
class Packages:
    """What was fetched: `folder` has the programs in bin/, and all files in root/."""

    folder: Path

    @property
    def qemu(self) -> Path:
        """`qemu-system-x86_64`."""
        return self.folder / "bin/qemu-system-x86_64"

    @property
    def virtiofsd(self) -> Path:
        """`virtiofsd`."""
        return self.folder / "bin/virtiofsd"

    @property
    def kernel(self) -> Path:
        """The kernel, to boot."""
        return next((self.folder / "root/boot").glob("vmlinuz-*"))

    @property
    def modules(self) -> Path:
        """The folder of its modules."""
        return next((self.folder / "root/usr/lib/modules").glob("*")) / "kernel"


def fetched() -> Packages | None:
    """What a guest needs, if it has been fetched."""
    folder = cache_directory() / f"guest-{VERSION}"
    return Packages(folder) if folder.exists() else None


def fetch() -> Packages:
    """What a guest needs, fetched now if it was not before: about 50 MB, 260 MB unpacked."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise EnvironmentFault(f"{tool} is not on the PATH: guests can be had on Debian and its relatives only")
    if not KEYRING.exists():
        raise EnvironmentFault(f"{KEYRING} is missing, so that nothing could be checked: "
                               "sudo apt-get install debian-archive-keyring")
    with open(cache_directory() / "guest.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (known := fetched()) is not None:
            return known
        final = cache_directory() / f"guest-{VERSION}"
        with tempfile.TemporaryDirectory(dir=cache_directory(), prefix="guest-") as name:
            made = Path(name) / "made"
            _unpack(_download(Path(name), _archive()), made / "root")
            _make_programs(made / "bin")
            made.rename(final)
        return Packages(final)


def _archive() -> str:
    """Where this machine's apt has Debian from."""
    known = _run(["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"],
                 dict(os.environ))
    for line in known.splitlines():
        origin, _, rest = line.partition(" ")
        label, _, place = rest.partition(" ")
        if origin == label == "Debian":
            return place
    raise EnvironmentFault("this machine's apt knows no archive of Debian, where a guest is fetched from: "
                           "`sudo apt-get update`, or name one in /etc/apt/sources.list.d")


def _download(folder: Path, archive: str) -> list[Path]:
    """The packages and all that they depend on, as files."""
    for part in ("state/lists/partial", "cache/archives/partial", "etc"):
        (folder / part).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "etc/sources.list").write_text("".join(
        f"deb [signed-by={KEYRING}] {archive} {suite} main\n" for suite in SUITES))
    (folder / "etc/preferences").write_text(
        f"Package: {FROM_BACKPORTS}\nPin: release n={SUITES[1]}\nPin-Priority: 900\n")
    (folder / "apt.conf").write_text(
        f'Dir::State "{folder}/state";\nDir::State::status "{folder}/status";\nDir::Cache "{folder}/cache";\n'
        f'Dir::Etc "{folder}/etc";\nDir::Etc::sourceparts "-";\nDir::Etc::preferencesparts "-";\n'
        'APT::Architecture "amd64";\nAPT::Architectures { "amd64"; };\nAPT::Sandbox::User "";\n'
        'Acquire::Languages "none";\n')
    environment = {**os.environ, "APT_CONFIG": str(folder / "apt.conf"), "LC_ALL": "C"}
    for arguments in (["update", "--error-on=any"],
                      ["install", "--yes", "--download-only", "--no-install-recommends", *PACKAGES]):
        _run(["apt-get", "--quiet", *arguments], environment)
    return sorted((folder / "cache/archives").glob("*.deb"))


def _unpack(packages: list[Path], root: Path) -> None:
    root.mkdir(parents=True)
    for package in packages:
        _run(["dpkg-deb", "--extract", str(package), str(root)], dict(os.environ))


def _make_programs(folder: Path) -> None:
    """Scripts that start the programs of the folder `root` beside theirs, wherever that is."""
    folder.mkdir()
    firmware = '-L "$root/usr/share/qemu" -L "$root/usr/share/seabios"'
    for program, options in (("usr/bin/qemu-system-x86_64", firmware), ("usr/libexec/virtiofsd", "")):
        path = folder / Path(program).name
        path.write_text(f'#!/bin/sh\nroot=$(dirname "$(readlink -f "$0")")/../root\nlibraries=$root/{_LIBRARIES}\n'
                        'export QEMU_MODULE_DIR="$libraries/qemu"\n'
                        'exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" '
                        f'"$root/{program}" {options} "$@"\n')
        path.chmod(0o755)


def _run(command: list[str], environment: dict[str, str]) -> str:
    """What a command prints."""
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_FETCH_SECONDS,
                              stdin=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFault(f"{' '.join(command[:3])} did not end within {_FETCH_SECONDS:g} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
        raise EnvironmentFault("what a guest needs cannot be fetched "
                               f"({lines[0] if lines else f'exit code {done.returncode}'}): is there a network? "
                               f"On a machine with one, `{FETCH}` fills {cache_directory()}, which can be copied")
    return done.stdout


def main() -> int:
    """`python -m sim.guest.packages`: fetch, and say where it is."""
    import sys

    from morphnic.errors import MorphnicError

    try:
        print(fetch().folder)
    except MorphnicError as error:
        print(f"morphnic: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
