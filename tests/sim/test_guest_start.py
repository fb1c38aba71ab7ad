"""What a guest needs, and what is said where it cannot be had or does not come up; the guest itself is in tests/e2e."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from device_link import rundir
from morphnic.errors import EnvironmentFault
from sim.guest import __main__ as prompt
from sim.guest import packages
from sim.guest.machine import Completed, Guest
from sim.guest.packages import Packages, fetch, fetched
from sim.vfio_user import SOCKET_NAME

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/morphnic"


@pytest.fixture
def apt(tmp_path, monkeypatch) -> Path:
    """Stand-ins for apt-get and dpkg-deb, alone on the PATH; the script of the first is to be written."""
    for tool in ("apt-get", "dpkg-deb"):
        (tmp_path / tool).write_text("#!/bin/sh\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(packages, "KEYRING", tmp_path / "apt-get")
    return tmp_path / "apt-get"


@pytest.mark.parametrize(("archives", "asked", "words"), [
    ("Debian Debian http://near/debian/", "http://near/debian/", "E: no route to it.*is there a network"),
    ("Other Debian http://far/\nDebian Debian-Security http://far/\nDebian Debian http://near/", "http://near/",
     "E: no route to it.*is there a network"),
    ("Other Debian http://far/", None, "knows no archive of Debian.*apt-get update"),
    ("", None, "knows no archive of Debian.*apt-get update"),
])
def test_fetch_that_fails_asked_this_machines_archive_and_leaves_nothing_half_done(cache, apt, archives, asked, words):
    sources = apt.parent / "sources"
    apt.write_text(f"""#!/bin/sh
[ "$1" = indextargets ] && {{ printf '{archives}\\n'; exit; }}
while read -r line; do echo "$line"; done < "${{APT_CONFIG%/*}}/etc/sources.list" > {sources}
echo "E: no route to it" >&2; exit 100
""")
    with pytest.raises(EnvironmentFault, match=words):
        fetch()
    assert fetched() is None
    assert [path.name for path in cache.iterdir()] == ["guest.lock"]
    assert sources.exists() == (asked is not None)
    if asked:
        assert sources.read_text().count(f" {asked} trixie") == 2


def test_fetch_names_the_tool_or_the_keys_that_are_missing(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFault, match="apt-get is not on the PATH"):
        fetch()
    for tool in ("apt-get", "dpkg-deb"):
        (tmp_path / tool).write_text("#!/bin/sh\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setattr(packages, "KEYRING", tmp_path / "none.gpg")
    with pytest.raises(EnvironmentFault, match="sudo apt-get install debian-archive-keyring"):
        fetch()


def test_what_was_fetched_is_not_fetched_again(cache, monkeypatch):
    monkeypatch.setattr(packages, "KEYRING", Path("/dev/null"))
    monkeypatch.setattr(packages.shutil, "which", lambda tool: tool)
    (cache / f"guest-{packages.VERSION}").mkdir(parents=True)
    assert fetch() == fetched() == Packages(cache / f"guest-{packages.VERSION}")


def test_programs_are_started_by_their_own_loader_wherever_the_folder_was_moved(tmp_path):
    loader = tmp_path / "made/root/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    loader.parent.mkdir(parents=True)
    loader.write_text('#!/bin/sh\nprintf "%s\\n" "$QEMU_MODULE_DIR" "$@"\n')
    loader.chmod(0o755)
    packages._make_programs(tmp_path / "made/bin")
    (tmp_path / "made").rename(tmp_path / "moved to")
    moved = Packages(tmp_path / "moved to")
    for program, path in ((moved.qemu, "usr/bin/qemu-system-x86_64"), (moved.virtiofsd, "usr/libexec/virtiofsd")):
        told = subprocess.run([program, "a b"], capture_output=True, text=True, check=True).stdout.splitlines()
        root = Path(os.path.normpath(told[3].removesuffix(path)))
        assert (root, told[1], told[3].endswith(path), told[-1]) == (
            tmp_path / "moved to/root", "--library-path", True, "a b")


def guest_of(folder: Path, virtiofsd: str, qemu: str) -> Packages:
    """Programs of a guest that are shell scripts."""
    for name in ("bin", "root/boot", "root/usr/lib/modules/6"):
        (folder / name).mkdir(parents=True)
    (folder / "root/boot/vmlinuz-6").touch()
    made = Packages(folder)
    for path, script in ((made.virtiofsd, virtiofsd), (made.qemu, qemu)):
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return made


#: The name is there a while before somebody listens, as on a busy machine.
LISTENER = """
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
time.sleep(0.3)
listener.listen()
time.sleep(60)
"""
LISTENS = ('while [ "$1" != --socket-path ]; do shift; done; '
           f'exec {sys.executable} -c {shlex.quote(LISTENER)} "$2"')


@pytest.mark.parametrize(("virtiofsd", "qemu", "words"), [
    ("echo no namespaces >&2; exit 1", "exec sleep 60", "has ended: no namespaces"),
    (LISTENS, "echo no such device >&2; exit 1", "has ended: no such device"),
    (LISTENS, "echo waiting >&2; exec sleep 600", "does not answer in time: waiting"),
])
def test_a_guest_that_does_not_come_up_tells_why_and_leaves_no_process(tmp_path, monkeypatch, virtiofsd, qemu, words):
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    with pytest.raises(EnvironmentFault, match=words):
        # What ends is noticed; only who never answers is waited for to the end.
        Guest(guest_of(tmp_path, virtiofsd, qemu), timeout=3.0 if "in time" in words else 60.0)
    assert started
    assert all(process.returncode is not None for process in started)


#: Stands where QEMU is: the agent of a guest, on this machine.
AGENT = """
import json, socket, sys, time
from sim.guest import init
files, path = (next(word for word in sys.argv if word.startswith(f"socket,id={name},")).split("path=")[1].split(",")[0]
               for name in ("files", "agent"))
socket.socket(socket.AF_UNIX).connect(files)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
time.sleep(0.3)
listener.listen()
peer, _ = listener.accept()
peer.sendall(json.dumps({"ready": "6.0"}).encode() + b"\\n")
for line in peer.makefile():
    answer = json.dumps(init.run(json.loads(line))).encode() + b"\\n"
    peer.sendall(answer[:5])
    peer.sendall(answer[5:])
"""


def test_commands_run_one_after_the_other_with_their_output_and_a_time_of_this_machines_clock(tmp_path):
    (tmp_path / "agent.py").write_text(AGENT)
    stand_in = guest_of(tmp_path, LISTENS, f'PYTHONPATH={ROOT} exec {sys.executable} {tmp_path}/agent.py "$@"')
    with Guest(stand_in, timeout=60) as guest:
        assert guest.kernel == "6.0"
        assert guest.run(["sh", "-c", "echo out; echo err >&2; exit 3"]) == Completed(3, "out\n", "err\n")
        assert guest.run(["pwd"], directory=tmp_path).output == f"{tmp_path}\n"
        with pytest.raises(EnvironmentFault, match="No such file"):
            guest.run(["/nowhere/program"])
        assert len(guest.run(["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x"]).output) == 300000
        with pytest.raises(EnvironmentFault, match="does not answer in time"):
            guest.run(["sleep", "5"], timeout=0.5)


def test_lines_of_the_prompt_run_in_the_guest_and_the_code_of_the_last_is_its_own(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "agent.py").write_text(AGENT)
    stand_in = guest_of(tmp_path, LISTENS, f'PYTHONPATH={ROOT} exec {sys.executable} {tmp_path}/agent.py "$@"')
    monkeypatch.setattr(prompt, "fetch", lambda: stand_in)
    socket = rundir.device_dir("card") / SOCKET_NAME
    socket.parent.mkdir(parents=True)
    socket.touch()
    monkeypatch.setattr(sys, "stdin", io.StringIO("echo one; false\nexec python3 -c 'import sys; print(sys.prefix)'\n"
                                                  "echo two >&2; exit 3\n"))
    assert prompt.main(["card"]) == 3
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == (f"one\n{sys.prefix}\n", "two\n")


def test_prompt_names_the_device_that_does_not_run(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert prompt.main(["nobody"]) == 1
    assert "morphnic sim run --name nobody --set pcie_width=64" in capfd.readouterr().err
