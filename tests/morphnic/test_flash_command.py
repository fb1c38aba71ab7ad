"""`morphnic flash` against a stand-in openFPGALoader, a sysfs of the test's own, and a stand-in device that answers."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest

from gateware.board import programmer

STANDIN = Path(__file__).parent / "loader_standin.py"
BUILD_ID = 0xB01D  # what the stand-in device answers with
ULX3S = {"idVendor": "0403", "idProduct": "6015", "product": "ULX3S FPGA 85K v3.0.8", "serial": "K00321"}


@pytest.fixture
def bench(home, tmp_path, monkeypatch):
    """A machine with a build folder, USB devices and the stand-in loader; its parts are changed by the tests."""
    return Bench(tmp_path, monkeypatch)


class Bench:
    """What `morphnic flash` finds."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder / "build"
        self.sysfs, self.nodes, self.calls = folder / "sys", folder / "dev", folder / "calls"
        self.sysfs.mkdir()
        monkeypatch.setattr(programmer, "SYSFS", self.sysfs)
        monkeypatch.setattr(programmer, "NODES", self.nodes)
        monkeypatch.setattr(programmer, "BOOT_TIMEOUT_S", 0.5)
        binaries = folder / "bin"
        binaries.mkdir()
        self.loader = binaries / "openFPGALoader"
        self.loader.write_text(f"#!/bin/sh\nexec {sys.executable} {STANDIN} \"$@\"\n")
        self.loader.chmod(0o755)
        monkeypatch.delenv("OPENFPGALOADER", raising=False)
        monkeypatch.setenv("PATH", f"{binaries}:/usr/bin:/bin")
        monkeypatch.setenv("STANDIN_CALLS", str(self.calls))
        self.case = lambda name: monkeypatch.setenv("STANDIN_LOADER", name)
        self.case("ok")
        self.build()
        self.plug("1-2", **ULX3S)

    def build(self, board="ulx3s-85f", build_id=BUILD_ID):
        """Files as `morphnic build` leaves them."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.file = self.folder / f"{board}.bit"
        self.file.write_bytes(b"not a real bitstream")
        digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        (self.folder / "report.json").write_text(json.dumps({
            "target": board, "build_id": f"{build_id:#018x}",
            "bitstream": {"file": self.file.name, "sha256": digest, "seed": "1"}}))

    def plug(self, place, **facts):
        """A USB device as sysfs shows it, number from its place."""
        folder = self.sysfs / place
        folder.mkdir()
        for name, text in (facts | {"busnum": "1", "devnum": place[-1]}).items():
            (folder / name).write_text(text + "\n")
        (folder / f"{place}:1.0" / f"ttyUSB{place[-1]}").mkdir(parents=True)

    def called(self):
        """How the loader was called."""
        return [json.loads(line) for line in self.calls.read_text().splitlines()] if self.calls.exists() else []

    def flash(self, typed, *more, board="ulx3s-85f", variables=None):
        return typed("flash", "--board", board, "--folder", str(self.folder), *more, variables=variables)


COMMON = ["--board", "ulx3s", "--ftdi-serial", "K00321"]


def test_board_is_checked_then_written_then_asked_for_its_build(bench, typed, stand_in):
    done = bench.flash(typed, "--yes", "--device", "sim://stand-in", "--json")
    assert done.returncode == 0, done.stderr
    assert bench.called() == [[*COMMON, "--detect"], [*COMMON, "--write-sram", str(bench.file)]]
    document = json.loads(done.stdout)
    assert (document["written"], document["verified_at"]) == (True, "sim://stand-in")
    assert document["idcode"] == "0x41113043"
    assert document["build_id"] == "0x000000000000b01d"
    assert "cable 0403:6015 'ULX3S FPGA 85K v3.0.8' K00321" in done.stderr
    assert "Loading: 50 %" in done.stderr
    assert "Loading: 100 %" in done.stderr


def test_keep_writes_and_verifies_the_flash(bench, typed, stand_in):
    assert bench.flash(typed, "--yes", "--keep", "--device", "sim://stand-in").returncode == 0
    assert bench.called()[1] == [*COMMON, "--write-flash", "--verify", str(bench.file)]


def test_cable_of_the_command_line_replaces_the_boards(bench, typed, stand_in):
    assert bench.flash(typed, "--yes", "--cable", "ft232", "--device", "sim://stand-in").returncode == 0
    assert bench.called()[0] == ["--cable", "ft232", "--ftdi-serial", "K00321", "--detect"]


def test_dry_run_checks_and_writes_nothing(bench, typed):
    done = bench.flash(typed, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "nothing was written" in done.stdout
    assert "--write-sram" in done.stdout
    assert bench.called() == [[*COMMON, "--detect"]]


def test_nobody_to_ask_writes_nothing(bench, typed):
    done = bench.flash(typed)
    assert done.returncode == 1
    assert "say --yes" in done.stderr
    assert len(bench.called()) == 1


def test_other_part_is_refused_before_anything_is_written(bench, typed):
    bench.case("other part")
    done = bench.flash(typed, "--yes")
    assert done.returncode == 1
    assert "IDCODE 0x41112043" in done.stderr
    assert "has 0x41113043: this is another board" in done.stderr
    assert len(bench.called()) == 1


def test_silent_jtag_is_refused(bench, typed):
    bench.case("no part")
    done = bench.flash(typed, "--yes")
    assert (done.returncode, "no part answers on JTAG" in done.stderr) == (1, True)


def test_same_ids_with_another_product_string_are_another_board(bench, typed):
    shutil.rmtree(bench.sysfs / "1-2")
    bench.plug("1-3", **ULX3S | {"product": "FT230X Basic UART"})
    done = bench.flash(typed, "--yes")
    assert done.returncode == 1
    assert "looked for USB 0403:6015 'ULX3S...'" in done.stderr
    assert "'FT230X Basic UART' K00321 has the same ids but is another board" in done.stderr
    assert bench.called() == []


def test_no_cable_says_what_was_looked_for(bench, typed):
    shutil.rmtree(bench.sysfs / "1-2")
    done = bench.flash(typed, "--yes")
    assert (done.returncode, "no cable of Radiona ULX3S (LFE5U-85F) is plugged in" in done.stderr) == (1, True)


def test_one_of_several_cables_is_named_by_its_serial_number(bench, typed):
    bench.plug("1-4", **ULX3S | {"serial": "K00999"})
    done = bench.flash(typed, "--yes")
    assert (done.returncode, "name one with --serial" in done.stderr) == (1, True)
    done = bench.flash(typed, "--dry-run", "--serial", "K00999")
    assert done.returncode == 0
    assert bench.called() == [["--board", "ulx3s", "--ftdi-serial", "K00999", "--detect"]]


def test_refusal_by_the_system_names_cable_and_rule(bench, typed):
    bench.case("refused")
    done = bench.flash(typed, "--yes")
    assert done.returncode == 3
    assert "cable 0403:6015 'ULX3S FPGA 85K v3.0.8' K00321" in done.stderr
    assert "usb_open() failed" in done.stderr
    assert "sudo cp deploy/udev/71-morphnic-cables.rules" in done.stderr
    assert (Path(__file__).parents[2] / "deploy/udev/71-morphnic-cables.rules").exists()


def test_node_that_may_not_be_opened_is_told_before_the_loader_runs(bench, typed, monkeypatch):
    node = bench.nodes / "001" / "002"
    node.parent.mkdir(parents=True)
    node.write_text("")
    # As root every file may be opened: the kernel's answer is put in its place.
    real = programmer.os.access
    monkeypatch.setattr(programmer.os, "access", lambda path, mode: path != node and real(path, mode))
    done = bench.flash(typed, "--yes")
    assert done.returncode == 3
    assert f"{node} may not be opened by this user" in done.stderr
    assert "71-morphnic-cables.rules" in done.stderr
    assert bench.called() == []


def test_missing_loader_names_the_package(bench, typed):
    bench.loader.unlink()
    done = bench.flash(typed, "--yes")
    assert done.returncode == 3
    assert "openFPGALoader is not on the PATH; type: sudo apt-get install openfpgaloader" in done.stderr


def test_broken_write_tells_the_loaders_words(bench, typed):
    bench.case("breaks")
    done = bench.flash(typed, "--yes")
    assert done.returncode == 1
    assert "ended with status 1" in done.stderr
    assert "usb bulk write failed" in done.stderr


def test_loader_that_hangs_is_stopped(bench, typed, monkeypatch):
    monkeypatch.setattr(programmer, "WRITE_TIMEOUT_S", 0.5)
    bench.case("silent")
    done = bench.flash(typed, "--yes")
    assert done.returncode == 1
    assert "has not ended after 0.5 s and was stopped" in done.stderr


def test_device_that_answers_with_another_build_fails_the_verification(bench, typed, stand_in):
    bench.build(build_id=0xBAD)
    done = bench.flash(typed, "--yes", "--device", "sim://stand-in")
    assert done.returncode == 1
    assert "answers with build 0x000000000000b01d, not with 0x0000000000000bad" in done.stderr
    assert len(bench.called()) == 2


def test_device_that_does_not_answer_fails_the_verification(bench, typed):
    done = bench.flash(typed, "--yes", "--device", "sim://nobody")
    assert done.returncode == 1
    assert "was written, but no device answers: sim://nobody" in done.stderr


def test_serial_port_of_the_cable_is_asked_whatever_device_the_settings_name(bench, typed, stand_in):
    done = bench.flash(typed, "--yes", variables={"MORPHNIC_DEVICE": "sim://stand-in"})
    assert done.returncode == 1
    assert "uart:///dev/ttyUSB2?baud=1000000" in done.stderr


def test_part_without_idcode_is_told_by_its_product_string(bench, typed):
    bench.build("ice40-hx8k-evn")
    bench.plug("1-5", idVendor="0403", idProduct="6010", product="Lattice FTUSB Interface Cable", serial="")
    done = bench.flash(typed, "--dry-run", "--json", board="ice40-hx8k-evn")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["idcode"] is None
    assert document["command"][1:] == ["--board", "ice40_generic", "--write-flash", "--verify", str(bench.file)]
    assert "the part has no IDCODE" in done.stderr
    assert bench.called() == []


@pytest.mark.parametrize(("change", "message"), [
    (lambda bench: shutil.rmtree(bench.folder), "there is no report.json"),
    (lambda bench: bench.build("ecpix5-85"), "holds a build for ecpix5-85, not for ulx3s-85f"),
    (lambda bench: bench.file.write_bytes(b"changed"), "is not the file that"),
    (lambda bench: bench.file.unlink(), "is not the file that"),
])
def test_build_folder_that_is_not_this_boards_is_refused(bench, typed, change, message):
    change(bench)
    done = bench.flash(typed, "--yes")
    assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    assert bench.called() == []
