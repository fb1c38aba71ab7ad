"""Opening devices by URL: socket, serial port, record; what each kind of trouble is called."""

import os
import threading

import pytest
import serial

import device_link
from device_link import BusError, Capability, rundir
from device_link.discovery import discover
from device_link.operations import Read, ReadList, Write, WriteList
from device_link.replay import ReplayDeparture
from morphnic.errors import (
    DeviceBusy,
    DeviceNotFound,
    EnvironmentFault,
    InputError,
    LinkError,
    LinkTimeout,
    RegisterMapMismatch,
    UnsupportedCapability,
)
from tests.device_link.device_model import DeviceModel
from tests.device_link.server import PtyServer, SocketServer


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "morphnic"


@pytest.fixture
def simulated(runtime):
    servers = []

    def start(name="one", **options):
        server = SocketServer(options.pop("model", None) or DeviceModel(), runtime / name, name=name, **options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.finish()


@pytest.fixture
def serial_port():
    server = PtyServer(DeviceModel())
    yield server
    server.close()


def exercise(dev):
    """The same on every link."""
    dev.id.scratch.write(0xDEADBEEF)
    assert int(dev.id.scratch.read()) == 0xDEADBEEF
    assert dev.identity.config == DeviceModel().config
    dev.write([(dev.objective[tenant].slo, tenant + 1) for tenant in range(4)])
    assert [int(value) for value in dev.read(f"objective[{tenant}].slo" for tenant in range(4))] == [1, 2, 3, 4]
    with pytest.raises(BusError, match=r"objective\[9\]\.slo"):
        dev.read([dev.objective[9].slo])


@pytest.mark.parametrize("url", ["sim://", "sim://one"])
def test_simulated_device_is_found_by_name_or_alone(simulated, url):
    simulated()
    with device_link.open(url, writer=True) as dev:
        exercise(dev)
        assert Capability.WINDOWS | Capability.CONTROL | Capability.EXCLUSIVE in dev.capabilities


def test_simulated_device_is_opened_by_its_socket(simulated):
    server = simulated(publish=False)
    with device_link.open(f"sim://{server.path}", writer=True) as dev:
        exercise(dev)


def test_serial_port_is_opened_and_exclusive(serial_port):
    with device_link.open(serial_port.url, writer=True) as dev:
        exercise(dev)
        assert Capability.EXCLUSIVE in dev.capabilities
        with pytest.raises(DeviceBusy, match="in use by another program"):
            device_link.open(serial_port.url)
    with device_link.open(serial_port.url) as dev:
        assert int(dev.id.magic.read()) == 0x46524F4D


def test_serial_port_held_by_another_program_is_busy(serial_port):
    with serial.Serial(serial_port.path, exclusive=True), pytest.raises(DeviceBusy):
        device_link.open(serial_port.url)


def test_silent_serial_port_raises_within_the_timeout(serial_port):
    serial_port.muted = True
    with pytest.raises(LinkTimeout, match=r"nothing answers within 0\.3 s"):
        device_link.open(serial_port.url, timeout=0.3)


def test_device_that_falls_silent_raises_and_never_gives_zeros(serial_port):
    with device_link.open(serial_port.url, timeout=0.2) as dev:
        serial_port.muted = True
        with pytest.raises(LinkTimeout):
            dev.id.magic.read()
        serial_port.muted = False
        assert int(dev.id.magic.read()) == 0x46524F4D


@pytest.mark.parametrize(("url", "error", "text"), [
    ("sim://nobody", DeviceNotFound, "no simulated device 'nobody' runs"),
    ("sim://", DeviceNotFound, "no simulated device runs"),
    ("sim:///nowhere/device.sock", DeviceNotFound, "no simulated device answers at /nowhere/device.sock"),
    ("uart:///dev/ttyNONE9", DeviceNotFound, "there is no serial port /dev/ttyNONE9"),
    ("uart://", InputError, "names no serial port"),
    ("uart:///dev/ttyS0?baud=fast", InputError, "baud in .* must be a number above 0, not 'fast'"),
    ("uart:///dev/ttyS0?parity=even", InputError, "unknown option parity; it knows baud"),
    ("sim://one?baud=1", InputError, "unknown option baud; it has none"),
    ("ftdi://0000:03:00.0", InputError, "begins with one of uart://, pcie://, sim://, tcp://, unix://, replay://"),
    ("/dev/ttyUSB0", InputError, "begins with one of uart://, pcie://, sim://, tcp://, unix://, replay://"),
    ("replay:///nowhere/record", InputError, "the record /nowhere/record cannot be read"),
])
def test_url_that_leads_nowhere_says_why(runtime, url, error, text):
    with pytest.raises(error, match=text):
        device_link.open(url)


def test_several_simulated_devices_must_be_told_apart(simulated):
    simulated("one")
    simulated("two")
    with pytest.raises(DeviceNotFound, match="sim://one, sim://two"):
        device_link.open("sim://")
    with device_link.open("sim://two") as dev:
        assert dev.url == "sim://two"


def test_right_to_write_is_asked_for_and_refusal_is_told(simulated):
    server = simulated(control={"acquire": {"ok": False, "reason": "busy", "error": "held by process 5"}})
    with pytest.raises(DeviceBusy, match="held by process 5"):
        device_link.open("sim://", writer=True)
    with device_link.open("sim://") as dev:
        assert int(dev.id.magic.read()) == 0x46524F4D
    assert server.documents == [{"op": "acquire"}]


def test_reader_cannot_write(simulated):
    server = simulated()
    with device_link.open("sim://") as dev, pytest.raises(LinkError, match="opened for reading only"):
        dev.id.scratch.write(1)
    assert server.model.peek("id.scratch") == 0


def test_time_is_granted_only_where_the_device_takes_grants(simulated):
    server = simulated(capabilities=("TIME_GRANTS", "CONTROL"),
                       control={"advance": {"ok": True, "ran": 500, "cycle": 500}})
    with device_link.open("sim://") as dev:
        assert dev.advance(500)["ran"] == 500
    assert server.documents == [{"op": "advance", "cycles": 500}]


def test_refused_grant_of_time_raises(simulated):
    simulated(capabilities=("TIME_GRANTS", "CONTROL"), control={
        "advance": {"ok": False, "reason": "busy", "error": "another connection grants the time"}})
    with device_link.open("sim://") as dev, pytest.raises(DeviceBusy, match="another connection"):
        dev.advance(500)


def test_missing_capability_is_named(serial_port):
    with device_link.open(serial_port.url) as dev:
        with pytest.raises(UnsupportedCapability, match="cannot do TIME_GRANTS; it can do REGISTERS, WINDOWS"):
            dev.advance(100)
        with pytest.raises(UnsupportedCapability, match="CONTROL"):
            dev.transport.control({"op": "status"})


def test_simulated_device_that_ends_is_told(simulated):
    server = simulated()
    with device_link.open("sim://") as dev:
        server.finish()
        with pytest.raises(LinkError, match="ended"):
            dev.id.magic.read()


def test_pushed_windows_arrive_over_the_socket(simulated):
    simulated()
    with device_link.open("sim://", writer=True) as dev:
        dev.write([(dev.analyzer.window, 2000), (dev.analyzer.control, {"push": 1})])
        for _ in range(300):
            dev.id.scratch.read()
        windows = dev.windows(1.0)
    assert len(windows) >= 3
    assert [window.number for window in windows] == list(range(windows[0].number, windows[0].number + len(windows)))


def test_another_register_map_is_refused_with_the_remedy(simulated):
    server = simulated()
    server.model.poke("id.map_hash", 0x1111)
    with pytest.raises(RegisterMapMismatch, match=r"0x00001111.*flash the bitstream of this version"):
        device_link.open("sim://")
    with device_link.open("sim://", check=False) as dev:
        assert int(dev.id.map_hash.read()) == 0x1111


def test_what_is_no_device_is_refused(simulated):
    server = simulated()
    server.model.poke("id.magic", 0)
    with pytest.raises(RegisterMapMismatch, match="no Morphnic device"):
        device_link.open("sim://")


def test_configuration_that_cannot_exist_is_refused(simulated):
    server = simulated()
    server.model.poke("id.config0", 0xFF)
    with device_link.open("sim://") as dev, pytest.raises(LinkError, match="describes itself wrongly: ports must be"):
        _ = dev.identity


@pytest.mark.parametrize(("operation", "text"), [
    (Read(2), "address must be a multiple of 4 below 0x40000, not 0x2"),
    (Read(0x4_0000), "address must be"),
    (Read(0x3_FFFC, 2), "address must be"),
    (Read(-4), "address must be"),
    (Read(0, 0), "count must be at least 1, not 0"),
    (ReadList((0, 6)), "address must be"),
    (Write(0x30, (1 << 32,)), "word must be in 0..0xffffffff, not 4294967296"),
    (Write(0x30, (-1,)), "word must be"),
    (WriteList(((0x30, 1), (0x31, 1))), "address must be"),
])
def test_wrong_argument_is_refused_before_anything_is_sent(simulated, operation, text):
    server = simulated()
    with device_link.open("sim://", writer=True) as dev:
        before = server.model.cycle
        with pytest.raises(ValueError, match=text):
            dev.transport.execute([Write(0x30, (5,)), operation])
        assert server.model.cycle == before


@pytest.mark.parametrize("timeout", [0, -1])
def test_timeout_must_be_positive(simulated, timeout):
    simulated()
    with pytest.raises(ValueError, match="timeout must be above 0 seconds"):
        device_link.open("sim://", timeout=timeout)


def test_closed_transport_raises(simulated):
    simulated()
    dev = device_link.open("sim://")
    dev.close()
    dev.close()
    with pytest.raises(LinkError, match="is closed"):
        dev.id.magic.read()


def test_record_is_replayed_and_a_departure_is_told(simulated, tmp_path):
    simulated()
    record = tmp_path / "session.jsonl"
    with device_link.open("sim://", writer=True, record=record) as dev:
        exercise(dev)
    with device_link.open(f"replay://{record}", writer=True) as dev:
        exercise(dev)
        with pytest.raises(ReplayDeparture, match="the record ends here"):
            dev.id.magic.read()
    with device_link.open(f"replay://{record}", writer=True) as dev:
        with pytest.raises(ReplayDeparture, match=r"session\.jsonl:3: .*'read_list', 0"):
            dev.id.magic.read()


@pytest.mark.parametrize(("text", "message"), [
    ("", "is empty"), ("{\n", ":1: not a line of JSON"), ('{"schema":9}\n', "has schema 9"), ("[]\n", "must be a JSON"),
    ('{"schema":1,"capabilities":["MAGIC"]}\n', "unknown capability 'MAGIC'"),
])
def test_broken_record_is_refused(tmp_path, text, message):
    path = tmp_path / "record"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        device_link.open(f"replay://{path}")


def test_discovery_lists_running_devices_and_opens_nothing(simulated, runtime, monkeypatch):
    simulated("two")
    simulated("one")
    gone = runtime / "gone"
    gone.mkdir()
    rundir.write_ready(gone, rundir.ReadyFile("gone", 2**22 + 5, "/x", None, 0, 0))
    (runtime / "broken").mkdir()
    (runtime / "broken" / "device.json").write_text("{")
    monkeypatch.setattr("device_link.discovery.list_ports.comports", lambda: [])
    assert [one.url for one in discover()] == ["sim://one", "sim://two"]


def test_discovery_lists_known_adapters_only(runtime, monkeypatch):
    class Port:
        def __init__(self, device, vid, pid):
            self.device, self.vid, self.pid, self.product, self.serial_number = device, vid, pid, "ULX3S", "D1"

    ports = [Port("/dev/ttyUSB1", 0x0403, 0x6015), Port("/dev/ttyS0", None, None), Port("/dev/ttyACM0", 0x1234, 1)]
    monkeypatch.setattr("device_link.discovery.list_ports.comports", lambda: ports)
    [found] = discover()
    assert (found.url, found.kind, found.details["usb"]) == ("uart:///dev/ttyUSB1", "serial", "0403:6015")


def test_ready_file_survives_and_tells_whether_its_process_runs(runtime):
    folder = runtime / "one"
    folder.mkdir(parents=True)
    ready = rundir.ReadyFile("one", os.getpid(), "/x/device.sock", "/dev/pts/7", 5, 6, time="lockstep",
                             capabilities=("TIME_GRANTS",))
    rundir.write_ready(folder, ready)
    assert rundir.read_ready(folder) == ready
    assert ready.running
    rundir.remove_ready(folder)
    rundir.remove_ready(folder)
    with pytest.raises(DeviceNotFound, match="no device has published"):
        rundir.read_ready(folder)


def test_ready_file_is_never_seen_half_written(runtime):
    folder = runtime / "one"
    folder.mkdir(parents=True)
    ready = rundir.ReadyFile("one", os.getpid(), "/x" * 200, None, 5, 6)
    rundir.write_ready(folder, ready)
    stop = threading.Event()

    def rewrite():
        while not stop.is_set():
            rundir.write_ready(folder, ready)

    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        for _ in range(300):
            assert rundir.read_ready(folder) == ready
    finally:
        stop.set()
        thread.join()
    assert os.listdir(folder) == ["device.json"]


def test_run_directory_is_private_and_must_be_ones_own(runtime, monkeypatch):
    assert rundir.run_dir().stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(EnvironmentFault, match="belongs to another user"):
        rundir.run_dir()


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65])
def test_name_that_could_leave_the_directory_is_refused(runtime, name):
    with pytest.raises(ValueError, match="name must be"):
        rundir.device_dir(name)


def test_too_long_socket_path_is_told_before_it_fails(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 100)))
    with pytest.raises(EnvironmentFault, match="longer than 107 bytes"):
        rundir.socket_path("one")
