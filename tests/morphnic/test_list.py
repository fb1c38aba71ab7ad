"""`morphnic list`, aliases, and which device an argument means."""

import json
import os
from pathlib import Path

import pytest
import serial

from device_link import discovery
from device_link.discovery import Candidate, pcie_functions, port_holder
from morphnic.devices import distinct
from tests.device_link.device_model import DeviceModel
from tests.device_link.network import Shared
from tests.device_link.server import PtyServer
from tests.morphnic.standin import StandIn
from tests.morphnic.test_command_line import one_line


def configure(home, text):
    (home / "config" / "morphnic" / "config.toml").write_text(text)


def listed(typed, *arguments):
    done = typed("list", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return {one["url"]: one for one in json.loads(done.stdout)["devices"]}


class Port:
    def __init__(self, device, serial_number, product="ULX3S FPGA 85K", vid=0x0403, pid=0x6015):
        self.device, self.serial_number, self.product, self.vid, self.pid = device, serial_number, product, vid, pid


@pytest.fixture
def ports(monkeypatch):
    """Boards on serial ports; the list may be changed."""
    found = [Port("/dev/ttyUSB7", "D00137"), Port("/dev/ttyUSB8", "D00138")]
    monkeypatch.setattr(discovery.list_ports, "comports", lambda: found)
    return found


@pytest.fixture
def shared():
    """A device served on tcp://."""
    server = Shared(DeviceModel())
    server.url = f"tcp://127.0.0.1:{server.server.listen_tcp(('127.0.0.1', 0))}"
    server.start()
    yield server
    server.finish()


def test_list_tells_who_a_device_is_and_who_writes_it(typed, home, stand_in, shared, ports):
    configure(home, f'[aliases]\nlab = "{shared.url}"\nmine = "sim://stand-in"\nulx = "D00137"\n')
    found = listed(typed)
    assert list(found) == ["sim://stand-in", "uart:///dev/ttyUSB7", "uart:///dev/ttyUSB8", shared.url]
    one = found["sim://stand-in"]
    assert (one["kind"], one["alias"], one["board"], one["build_id"], one["in_use"]) == (
        "simulated", ["mine"], "model", 0xB01D, None)
    assert one["map_hash"] == stand_in.registers.map.hash
    board = found["uart:///dev/ttyUSB7"]
    assert (board["serial_number"], board["board"], board["alias"]) == ("D00137", "ULX3S FPGA 85K", ["ulx"])
    far = found[shared.url]
    assert (far["kind"], far["alias"], far["serves"], far["serial_number"]) == (
        "server", ["lab"], "test://model", f"{0x5678 << 32:#018x}")
    import device_link
    with device_link.open(shared.url, writer=True), device_link.open("sim://stand-in", writer=True):
        for one in (listed(typed)[shared.url], listed(typed)["sim://stand-in"]):
            assert f"process {os.getpid()}" in one["in_use"]
        lines = typed("list").stdout.splitlines()
    assert lines[0].split()[:3] == ["url", "alias", "kind"]
    assert f"process {os.getpid()}" in lines[1]
    assert "nobody" in lines[2]


def test_server_that_does_not_answer_is_listed_with_the_reason(typed, home):
    configure(home, '[aliases]\nlab = "tcp://127.0.0.1:1"\n')
    done = typed("list")
    assert done.returncode == 0
    assert "tcp://127.0.0.1:1  lab" in done.stdout
    assert "no server answers at 127.0.0.1:1" in done.stderr
    assert "no server answers" in listed(typed)["tcp://127.0.0.1:1"]["error"]


def test_probe_asks_the_device_itself(typed, stand_in):
    assert listed(typed, "--probe")["sim://stand-in"]["identity"]["config"]["tenants"] == 16


def test_served_device_is_one_device():
    port = Candidate("uart:///dev/ttyUSB0", "serial", "")
    server = Candidate("unix:///x/device.sock", "server", "", serves="uart:///dev/ttyUSB0?baud=3000000")
    assert distinct([port, server]) == [server]
    assert distinct([port]) == [port]


@pytest.mark.parametrize(("argument", "reads"), [
    ("stand-in", True), ("mine", True), ("stand", True), ("D00137", False), ("ttyUSB8", False), ("lab", False),
])
def test_device_is_named_by_alias_name_serial_number_or_part(typed, home, stand_in, ports, argument, reads):
    configure(home, '[aliases]\nmine = "stand-in"\nlab = "uart:///dev/ttyUSB9?baud=9600"\n')
    if reads:
        assert json.loads(typed("info", "--device", argument, "--json").stdout)["identity"]["uid"] == 0x1234
    else:
        port = {"D00137": "ttyUSB7", "ttyUSB8": "ttyUSB8", "lab": "ttyUSB9"}[argument]
        assert f"there is no serial port /dev/{port}" in one_line(typed("info", "--device", argument), 1)


@pytest.mark.parametrize(("argument", "words"), [
    ("D001", ["'D001' means several devices", "uart:///dev/ttyUSB7 (serial number D00137)", "uart:///dev/ttyUSB8"]),
    ("nothing", ["no device is called 'nothing'", "aliases and devices found: chain, other, sim://"]),
    ("chain", ["names another alias"]),
    ("", ["must be a text that is not empty"]),
])
def test_argument_that_means_no_device_or_several_is_refused_with_the_candidates(
        typed, home, stand_in, ports, argument, words):
    configure(home, '[aliases]\nchain = "other"\nother = "sim://stand-in"\n')
    message = one_line(typed("regs", "write", "--device", argument, "id.scratch=1"), 1)
    for word in words:
        assert word in message
    assert stand_in.registers.get("id.scratch") == 0


def test_two_interfaces_with_one_serial_number_are_told_apart_by_port(typed, home, ports):
    ports[1].serial_number = "D00137"
    assert "ttyUSB7 (serial number D00137), uart:///dev/ttyUSB8" in one_line(typed("info", "--device", "D00137"), 1)
    assert "no serial port /dev/ttyUSB8" in one_line(typed("info", "--device", "ttyUSB8"), 1)


def test_exact_name_wins_over_a_part_of_others(typed, stand_in):
    other = StandIn("stand-in-2")
    try:
        assert typed("info", "--device", "stand-in").returncode == 0
        assert "several devices" in one_line(typed("info", "--device", "stand"), 1)
    finally:
        other.finish()


def test_holder_of_a_serial_port_is_its_process():
    server = PtyServer(DeviceModel())
    try:
        assert port_holder(Path(server.path)) is None
        with serial.Serial(server.path, exclusive=True):
            assert f"process {os.getpid()} (" in port_holder(Path(server.path))
        assert port_holder(Path(server.path)) is None
        assert port_holder(Path("/dev/ttyNONE")) is None
    finally:
        server.close()


def test_known_pcie_function_is_found_with_its_driver(tmp_path):
    for name, vendor, device in (("0000:03:00.0", "0x10ee", "0x9038"), ("0000:04:00.0", "0x8086", "0x1572")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "vendor").write_text(vendor + "\n")
        (folder / "device").write_text(device + "\n")
    (tmp_path / "drivers" / "vfio-pci").mkdir(parents=True)
    (tmp_path / "0000:03:00.0" / "driver").symlink_to(tmp_path / "drivers" / "vfio-pci")
    (found,) = pcie_functions(tmp_path, {(0x10EE, 0x9038): "a card"})
    # vfio-pci has it for whoever opens it, and nobody does.
    assert (found.url, found.kind, found.board, found.in_use, found.details["driver"]) == (
        "pcie://0000:03:00.0", "pcie", "a card", None, "vfio-pci")
    assert list(pcie_functions(tmp_path / "nowhere", {(0x10EE, 0x9038): "a card"})) == []


def test_function_of_vfio_is_in_use_while_a_process_has_its_group_open(tmp_path):
    folder, groups = tmp_path / "devices" / "0000:03:00.0", tmp_path / "vfio"
    for made in (folder, groups, tmp_path / "vfio-pci", tmp_path / "iommu_groups" / "7"):
        made.mkdir(parents=True)
    (folder / "vendor").write_text("0x10ee\n")
    (folder / "device").write_text("0x9038\n")
    (folder / "driver").symlink_to(tmp_path / "vfio-pci")
    (folder / "iommu_group").symlink_to(tmp_path / "iommu_groups" / "7")
    for group in ("7", "77"):
        (groups / group).write_text("")

    def holder():
        (found,) = pcie_functions(folder.parent, {(0x10EE, 0x9038): "a card"}, groups)
        return found.in_use

    with open(groups / "77"):
        assert holder() is None
    with open(groups / "7"):
        assert f"process {os.getpid()} (" in holder()
    assert holder() is None
