"""Bad input as a user types it, to a device behind each kind of server: one line that names the object and the remedy,
and the device untouched."""

import os
import stat

import pytest

import device_link
from tests.device_link.device_model import DeviceModel
from tests.device_link.network import LoggedModel, Shared
from tests.device_link.server import PtyServer
from tests.morphnic.test_command_line import one_line


@pytest.fixture(params=["stand-in", "tcp", "uart"])
def place(request, home):
    """(URL, what was written so far, close) of a device reached in three ways."""
    if request.param == "stand-in":
        device = request.getfixturevalue("stand_in")
        written = []
        own = device.registers.write
        device.registers.write = lambda address, word: (own(address, word), written.append((address, word)))
        yield "sim://stand-in", written
        return
    model = LoggedModel()
    if request.param == "uart":
        server = PtyServer(model)
        yield server.url, model.log
        server.close()
        return
    shared = Shared(model)
    url = f"tcp://127.0.0.1:{shared.server.listen_tcp(('127.0.0.1', 0))}"
    shared.start()
    yield url, model.log
    shared.finish()


@pytest.mark.parametrize(("arguments", "words"), [
    (("read", "rm.statu"), ["block rm has no register 'statu'", "did you mean status"]),
    (("write", "rn.status=1"), ["there is no register block 'rn'", "did you mean rm"]),
    (("write", "id.scratch=1", "rm.status.stat=1"), ["has no field 'stat'", "did you mean state"]),
    (("write", "id.scratch=1", "0x1002=1"), ["address 0x1002 must be a multiple of 4"]),
    (("write", "id.scratch=1", "0x40000=1"), ["address 0x40000", "below 0x40000"]),
    (("write", "id.scratch=1", "id.scratch=0x1_0000_0000"), ["value of id.scratch must be in 0..0xffffffff"]),
    (("write", "id.scratch=1", "objective[0].slo=-1"), ["value of objective[0].slo must be a number"]),
    (("write", "id.scratch=1", "generator.packet.tenant=64"), ["value of generator.packet.tenant must be in 0..0x3f"]),
    (("write", "id.scratch=1", "staging[64].weight=1"), ["index of staging must be in 0..63, not 64"]),
    (("write", "id.scratch=1", "id.magic=1"), ["register id.magic cannot be written: it is read-only"]),
])
def test_argument_that_cannot_be_right_writes_nothing(typed, place, arguments, words):
    url, written = place
    message = one_line(typed("regs", *arguments, "--device", url), 1)
    for word in words:
        assert word in message
    assert written == []


def test_address_without_a_register_is_named_and_nothing_behind_it_written(typed, place):
    url, written = place
    message = one_line(typed("regs", "write", "--device", url, "0x200=1", "id.scratch=1"), 1)
    assert "0x00200" in message
    assert "the device has none there, or it refused" in message
    assert written == []


def test_row_that_this_device_lacks_is_named(typed, place):
    url, written = place
    assert "objective[40].slo" in one_line(typed("regs", "read", "--device", url, "objective[40].slo"), 1)
    assert written == []


def test_what_a_link_cannot_do_is_named_with_what_it_can(typed, place):
    url, written = place
    if not url.startswith("sim://"):  # that one takes control documents
        message = one_line(typed("sim", "wave", "x.vcd", "--start", "1", "--device", url), 1)
        assert url in message
        assert "no waveform to give" in message
    with device_link.open(url, writer=True) as dev, pytest.raises(
            device_link.transport.UnsupportedCapability, match="cannot do TIME_GRANTS; it can do REGISTERS"):
        dev.advance(10)
    assert written == []


def test_busy_device_is_told_with_who_holds_it(typed, place):
    url, written = place
    with device_link.open(url, writer=True):
        message = one_line(typed("regs", "write", "--device", url, "id.scratch=1"), 1)
    if url.startswith("uart"):
        assert "is in use by another program: close it first" in message
    else:
        assert f"process {os.getpid()}" in message
        assert "stop the program that holds it" in message
    assert written == []


def test_port_without_permission_names_the_group(typed, home, monkeypatch):
    """Root may open everything: what the system answers to others is played."""
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("device_link.uart.serial.Serial", refuse)
    message = one_line(typed("regs", "write", "--device", "uart:///dev/ttyUSB0", "id.scratch=1"), 3)
    assert "no permission to open /dev/ttyUSB0: add your user to the group that owns it (dialout on Debian)" in message


def test_socket_without_permission_names_it(typed, home, monkeypatch, tmp_path):
    path = tmp_path / "d.sock"
    shared = Shared(DeviceModel())
    shared.server.listen_unix(path)
    shared.start()
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        monkeypatch.setattr("socket.socket.connect", lambda *_: (_ for _ in ()).throw(PermissionError(13, "denied")))
        message = one_line(typed("info", "--device", f"unix://{path}"), 3)
    finally:
        monkeypatch.undo()
        shared.finish()
    assert f"no permission to use the socket {path}" in message


@pytest.mark.parametrize(("url", "words"), [
    ("tcp://127.0.0.1:1", ["no server answers at 127.0.0.1:1 (Connection refused)", "morphnic serve"]),
    ("unix:///nowhere/d.sock", ["no server answers at /nowhere/d.sock", "morphnic serve"]),
    ("sim://nobody", ["no simulated device 'nobody' runs", "morphnic sim run"]),
    ("uart:///dev/ttyNONE", ["there is no serial port /dev/ttyNONE", "morphnic list"]),
    ("replay:///nowhere", ["the record /nowhere cannot be read: No such file", "morphnic test --record FILE"]),
    ("uart:///etc/hostname", ["/etc/hostname is no serial port", "morphnic list"]),
    ("ftp://x", ["a device URL begins with one of uart://, pcie://, sim://, tcp://, unix://, replay://"]),
])
def test_device_that_is_not_there_is_named_with_the_remedy(typed, home, url, words):
    message = one_line(typed("info", "--device", url), 1)
    for word in words:
        assert word in message


@pytest.mark.parametrize(("arguments", "words"), [
    (("regs", "diff", "gone.json", "sim://stand-in"), ["there is no file gone.json", "regs dump --json > gone.json"]),
    (("regs", "diff", "sim://stand-in", "sim://stand-in", "rm!"), ["a block is named as rm or staging[3], not 'rm!'"]),
    (("regs", "export", "--csr-csv", "/nowhere/x.csv"), ["/nowhere/x.csv cannot be written", "that you may write to"]),
    (("regs", "export", "--csr-csv", "x.csv", "--set", "tenants=two"), ["tenants must be a number, such as 16"]),
    (("scope", "save", "/nowhere/x.vcd"), ["/nowhere/x.vcd: the folder does not exist: make it, or name another"]),
    (("test", "--record", "/nowhere/x.jsonl"), ["/nowhere/x.jsonl: the folder does not exist: make it"]),
    (("selftest", "--junit", "/nowhere/x.xml"), ["/nowhere/x.xml: the folder does not exist: make it"]),
    (("serve", "--listen", "tcp://:0", "--tls-cert", "/etc/hostname", "--tls-key", "/nowhere.key"),
     ["(/nowhere.key: No such file or directory)", "--tls-key"]),
    (("serve", "--listen", "tcp://:0", "--tls-cert", "/etc/hostname"), ["(/etc/hostname: [SSL] PEM", "name PEM files"]),
])
def test_file_that_cannot_be_used_is_named_with_the_remedy(typed, stand_in, arguments, words):
    message = one_line(typed(*arguments), 1)
    for word in words:
        assert word in message


def test_server_that_dies_in_a_session_is_told_with_the_outcome(typed, home):
    model = LoggedModel()
    shared = Shared(model)
    url = f"tcp://127.0.0.1:{shared.server.listen_tcp(('127.0.0.1', 0))}"
    shared.start()
    with device_link.open(url, writer=True, timeout=0.5) as dev:
        shared.finish()
        with pytest.raises(device_link.session.LinkLost, match=r"the outcome of what was written is: ") as raised:
            dev.id.scratch.write(1)
    assert raised.value.outcome in ("unknown", "not applied")
    assert model.log == []
    assert "no server answers" in one_line(typed("regs", "write", "--device", url, "id.scratch=1"), 1)
