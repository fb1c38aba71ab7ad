"""A shared device: the same transport over it, the right to write, who may come in, and what a loss tells."""

import contextlib
import random
import shutil
import socket
import time

import pytest

import device_link
from device_link import Capability, conformance
from device_link.conformance.runner import CHECKS
from device_link.device import Device
from device_link.framing import encode_frame
from device_link.linked import SessionTransport
from device_link.operations import Hello, Read, Request, Write, encode_operations
from device_link.remote import server_tls
from device_link.session import DeviceReset
from device_link.transport import BusError
from morphnic.errors import DeviceBusy, DeviceNotFound, InputError, LinkError, LinkLost, LinkTimeout
from tests.device_link.device_model import DeviceModel, DirectPipe
from tests.device_link.network import LoggedModel, Proxy, Shared, make_certificates

TOKEN = b"a token of thirty-two characters"
SCRATCH = 0x30


@pytest.fixture
def share():
    """Starts servers of a model; they must end in order."""
    started = []

    def make(model=None, *, token=None, tls=None, **options):
        shared = Shared(model or LoggedModel(), **options)
        shared.port = shared.server.listen_tcp(("127.0.0.1", 0), token=token, tls=tls)
        shared.url = f"tcp://127.0.0.1:{shared.port}"
        started.append(shared.start())
        return shared

    yield make
    for shared in started:
        shared.finish()


@pytest.fixture
def token_file(tmp_path, monkeypatch):
    for name in ("MORPHNIC_TOKEN", "MORPHNIC_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "token"
    path.write_bytes(TOKEN + b"\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def proxy(share):
    made = []

    def make(shared):
        made.append(Proxy(shared.port))
        return made[-1], f"tcp://127.0.0.1:{made[-1].port}"

    yield make
    for one in made:
        one.close()


# --- the same device ---


@pytest.mark.slow
@pytest.mark.parametrize("door", ["tcp", "unix"])
def test_conformance_suite_passes_over_a_shared_device(share, tmp_path, door):
    shared = Shared(DeviceModel())
    shared.server.listen_unix(tmp_path / "d.sock")
    url = {"tcp": f"tcp://127.0.0.1:{shared.server.listen_tcp(('127.0.0.1', 0))}",
           "unix": f"unix://{tmp_path}/d.sock"}[door]
    shared.start()
    try:
        report = conformance.run(url, timeout=10)
        assert {result.name: (str(result.outcome), result.message) for result in report.results} == {
            check.name: ("pass", "") for check in CHECKS}
    finally:
        shared.finish()


def test_socket_is_its_owners_alone_and_goes_with_the_server(tmp_path):
    shared = Shared(DeviceModel())
    shared.server.listen_unix(tmp_path / "d.sock")
    assert (tmp_path / "d.sock").stat().st_mode & 0o777 == 0o600
    shared.start().finish()
    assert not (tmp_path / "d.sock").exists()


def test_several_clients_read_at_once_and_each_hears_of_windows(share):
    shared = share(DeviceModel())
    with device_link.open(shared.url, writer=True) as one, device_link.open(shared.url) as two:
        assert Capability.WINDOWS in two.capabilities
        assert Capability.CONTROL not in two.capabilities
        one.write([(one.analyzer.window, 2000), (one.analyzer.control, {"push": 1})])
        for _ in range(100):
            assert int(two.id.magic.read()) == int(one.id.magic.read())
        first, second = one.windows(2.0), two.windows(2.0)
        assert [window.number for window in first][:3] == [window.number for window in second][:3] != []


def test_bus_error_names_the_register_and_carries_out_what_stood_before(share):
    shared = share()
    with device_link.open(shared.url, writer=True) as dev:
        with pytest.raises(BusError, match=r"objective\[9\]\.slo") as raised:
            dev.read([dev.id.magic, dev.id.scratch, dev.objective[9].slo, dev.id.scratch])
        assert raised.value.addresses == (dev.objective[9].slo.address,)
        with pytest.raises(BusError, match="cannot be written"):
            dev.transport.write_many([(SCRATCH, 5), (0, 1), (SCRATCH, 6)])
        assert shared.model.log == [(SCRATCH, 5)]


# --- the right to write ---


def test_one_writer_at_a_time_and_the_other_is_told_who(share):
    shared = share()
    with device_link.open(shared.url, writer=True) as one:
        with pytest.raises(DeviceBusy, match=r"process \d+ .*holds the right to write test://model"):
            device_link.open(shared.url, writer=True)
        with device_link.open(shared.url) as reader:
            assert int(reader.id.scratch.read()) == 0
            reader.transport.writer = True  # a client that does not care is refused by the server
            with pytest.raises(DeviceBusy, match="does not hold the right to write"):
                reader.id.scratch.write(6)
        one.id.scratch.write(7)
    assert shared.model.log == [(SCRATCH, 7)]
    wait_for(lambda: shared.server.writer is None)
    with device_link.open(shared.url, writer=True) as two:
        two.id.scratch.write(8)


def wait_for(holds, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_silent_writer_gives_way_after_its_lease_and_is_told(share):
    shared = share(lease=0.2)
    with device_link.open(shared.url, writer=True) as silent:
        wait_for(lambda: time.monotonic() - shared.server.writer.heard > 0.25)
        silent.id.scratch.write(1)  # nobody asked: it still holds it
        wait_for(lambda: time.monotonic() - shared.server.writer.heard > 0.25)
        with device_link.open(shared.url, writer=True) as other:
            other.id.scratch.write(2)
            with pytest.raises(DeviceBusy, match="does not hold"):
                silent.id.scratch.write(3)
            assert int(silent.id.scratch.read()) == 2
    assert shared.model.log == [(SCRATCH, 1), (SCRATCH, 2)]


def test_writer_that_talks_keeps_its_lease(share):
    shared = share(lease=0.3)
    with device_link.open(shared.url, writer=True) as one:
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            one.id.scratch.read()
            with pytest.raises(DeviceBusy):
                device_link.open(shared.url, writer=True)
        one.id.scratch.write(1)


# --- a lost connection ---


def test_write_that_never_reached_the_server_is_not_applied_and_the_link_comes_back(share, proxy):
    shared = share()
    cutter, url = proxy(shared)
    with device_link.open(url, writer=True) as dev:
        cutter.cut_before = True
        with pytest.raises(LinkLost, match="not applied") as raised:
            dev.id.scratch.write(5)
        assert raised.value.outcome == "not applied"
        assert shared.model.log == []
        dev.id.scratch.write(6)  # the same transport, and still the writer
    assert shared.model.log == [(SCRATCH, 6)]


def test_write_whose_answer_was_lost_is_applied_and_not_repeated(share, proxy, tmp_path):
    shared = share()
    cutter, url = proxy(shared)
    record = tmp_path / "session.jsonl"
    with device_link.open(url, writer=True, record=record) as dev:
        cutter.cut_after = True
        with pytest.raises(LinkLost) as raised:
            dev.id.scratch.write(5)
        assert raised.value.outcome == "applied"
        assert int(dev.id.scratch.read()) == 5
    # ... and the record of it says the same.
    with device_link.open(f"replay://{record}", writer=True) as dev:
        with pytest.raises(LinkLost) as raised:
            dev.id.scratch.write(5)
        assert raised.value.outcome == "applied"
        assert int(dev.id.scratch.read()) == 5
    assert shared.model.log == [(SCRATCH, 5)]


def test_write_to_a_server_that_is_gone_is_unknown(share, proxy):
    shared = share()
    cutter, url = proxy(shared)
    with device_link.open(url, writer=True) as dev:
        cutter.cut_after = cutter.dead = True
        with pytest.raises(LinkLost, match="could not be opened again") as raised:
            dev.id.scratch.write(5)
        assert raised.value.outcome == "unknown"
        with pytest.raises(LinkError):
            dev.id.scratch.read()
        cutter.dead = False
        assert int(dev.id.scratch.read()) == 5


@pytest.mark.parametrize("seed", range(4))
def test_outcome_tells_the_truth_wherever_the_connection_breaks(share, proxy, seed):
    rng = random.Random(seed)
    shared = share()
    cutter, url = proxy(shared)
    outcomes = set()
    with device_link.open(url, writer=True) as dev:
        for step in range(60):
            pairs = [(SCRATCH, rng.getrandbits(32)) for _ in range(rng.randrange(1, 200))]
            before = len(shared.model.log)
            cutter.cut_before, cutter.cut_after = rng.choice([(False, False), (True, False), (False, True)])
            outcome = "applied"
            try:
                dev.transport.write_many(pairs)
            except LinkLost as error:
                outcome = error.outcome
            cutter.cut_before = cutter.cut_after = False
            dev.id.magic.read()  # whatever was on its way has arrived
            applied = shared.model.log[before:]
            assert applied == pairs[:len(applied)], f"seed {seed} step {step}: once, in order"
            # Only a list of several requests can be carried out in part: then the outcome of the whole is unknown.
            told = {"applied": len(applied) == len(pairs), "not applied": not applied,
                    "unknown": len(pairs) > 84 and 0 < len(applied) < len(pairs)}
            assert told[outcome], f"seed {seed} step {step}: {outcome}, {len(applied)} of {len(pairs)}"
            outcomes.add(outcome)
    assert outcomes == {"applied", "not applied", "unknown"}


def test_writer_whose_right_went_to_another_meanwhile_is_refused(share, proxy):
    shared = share()
    cutter, url = proxy(shared)
    with device_link.open(url, writer=True) as dev:
        cutter.cut_before = cutter.dead = True
        with pytest.raises(LinkLost):
            dev.id.scratch.write(1)
        cutter.dead = False
        with device_link.open(shared.url, writer=True) as other:
            with pytest.raises(DeviceBusy, match="holds it"):
                dev.id.scratch.write(2)
            other.id.scratch.write(3)
    assert shared.model.log == [(SCRATCH, 3)]


# --- the device behind the server ---


class Broken(SessionTransport):
    """A device whose link fails when told to."""

    def __init__(self, model):
        super().__init__(DirectPipe(model), url="test://model", writer=True)
        self.model = model

    def _execute(self, operations, *, ordered):
        if self.model.fails:
            raise self.model.fails.pop(0)
        return super()._execute(operations, ordered=ordered)


def breakable(share):
    model = LoggedModel()
    model.fails = []
    model.opened = 0

    def connect():
        model.opened += 1
        return Broken(model)

    return share(model, connect=connect)


@pytest.mark.parametrize("outcome", ["applied", "not applied", "unknown"])
def test_time_out_between_server_and_device_keeps_its_outcome(share, outcome):
    shared = breakable(share)
    with device_link.open(shared.url, writer=True) as dev:
        shared.model.fails = [LinkTimeout("test://model: no answer within 1 s", outcome=outcome)]
        with pytest.raises(LinkTimeout, match="no answer within 1 s") as raised:
            dev.id.scratch.write(5)
        assert raised.value.outcome == outcome
        assert int(dev.id.scratch.read()) == 0
        assert shared.model.opened == 1


def test_device_that_was_unplugged_is_told_and_found_again(share):
    shared = breakable(share)
    with device_link.open(shared.url, writer=True) as dev:
        shared.model.fails = [LinkError("reading failed: is the device still there?")] * 2
        with pytest.raises(LinkError, match="still there"):
            dev.id.scratch.read()
        assert int(dev.id.scratch.read()) == 0
        assert shared.model.opened == 2


def test_reset_of_the_device_is_told_to_every_client_once(share):
    shared = breakable(share)
    with device_link.open(shared.url, writer=True) as one, device_link.open(shared.url) as two:
        shared.model.fails = [DeviceReset("test://model: the device was reset", outcome="unknown")]
        shared.model.poke("id.boot_nonce", 0xB008)
        for dev in (one, two):
            with pytest.raises(DeviceReset):
                dev.id.scratch.read()
            assert int(dev.id.boot_nonce.read()) == 0xB008


# --- who may come in ---


@pytest.mark.parametrize("way", ["option", "file", "variable"])
def test_token_lets_in_and_never_goes_over_the_wire(share, proxy, token_file, monkeypatch, way):
    shared = share(token=TOKEN)
    cutter, url = proxy(shared)
    if way == "file":
        monkeypatch.setenv("MORPHNIC_TOKEN_FILE", str(token_file))
    elif way == "variable":
        monkeypatch.setenv("MORPHNIC_TOKEN", TOKEN.decode())
    else:
        url += f"?token_file={token_file}"
    with device_link.open(url, writer=True) as dev:
        dev.id.scratch.write(5)
    assert len(cutter.seen) > 100
    assert TOKEN not in cutter.seen


def test_without_the_token_nothing_is_told(share, token_file):
    shared = share(token=TOKEN)
    with pytest.raises(InputError, match="wants a token: set MORPHNIC_TOKEN_FILE"):
        device_link.open(shared.url)
    token_file.write_bytes(TOKEN[:-1] + b"X")
    with pytest.raises(InputError, match="the token is not the server's: compare the files"):
        device_link.open(f"{shared.url}?token_file={token_file}")
    for message in (Hello(1).encode(), Request(1, 0, encode_operations([Read(0)])).encode()):
        with socket.create_connection(("127.0.0.1", shared.port), timeout=5) as raw:
            raw.sendall(encode_frame(message))
            assert raw.recv(100) == b"", "the server hangs up"
    assert shared.server.clients == {}


def test_server_that_does_not_know_the_token_is_found_out(share, token_file, monkeypatch):
    shared = share(token=b"another token of many characters")
    monkeypatch.setattr("device_link.serving.access.proves", lambda *_: True)  # it lets anybody in
    with pytest.raises(InputError, match="not the server you mean"):
        device_link.open(f"{shared.url}?token_file={token_file}")


@pytest.mark.parametrize(("text", "mode", "message"), [
    ("short", 0o600, "at least 16 characters, not 5: make one with `openssl rand -hex 32`"),
    (TOKEN.decode(), 0o644, "others may read the token file .*chmod 600"),
    (None, 0o600, "cannot be read"),
])
def test_token_file_that_protects_nothing_is_refused(token_file, text, mode, message):
    if text is None:
        token_file.unlink()
    else:
        token_file.write_text(text)
        token_file.chmod(mode)
    with pytest.raises((InputError, device_link.access.EnvironmentFault), match=message):
        device_link.open(f"tcp://127.0.0.1:1?token_file={token_file}")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificates to test with")
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def test_tls_encrypts_and_trusts_the_right_authority_only(share, proxy, certificates):
    shared = share(tls=server_tls(certificates["server.pem"], certificates["server.key"], None))
    cutter, url = proxy(shared)
    with device_link.open(f"{url}?tls={certificates['ca.pem']}", writer=True) as dev:
        dev.id.scratch.write(5)
        assert int(dev.id.scratch.read()) == 5
    assert b"holder" not in cutter.seen
    with pytest.raises(InputError, match=r"no TLS with the server .*certificate"):
        device_link.open(f"{shared.url}?tls={certificates['other.pem']}")
    with pytest.raises(LinkError, match=r"TLS|ended"):
        device_link.open(shared.url, timeout=0.5)


def test_client_certificate_is_asked_for(share, certificates):
    shared = share(tls=server_tls(certificates["server.pem"], certificates["server.key"], certificates["ca.pem"]))
    url = f"{shared.url}?tls={certificates['ca.pem']}"
    with device_link.open(f"{url}&cert={certificates['client.pem']}&key={certificates['client.key']}") as dev:
        assert int(dev.id.magic.read()) == 0x46524F4D
    with pytest.raises((LinkError, InputError)):
        device_link.open(url)


def test_tls_server_that_is_not_spoken_to_in_tls_keeps_serving(share, certificates):
    shared = share(tls=server_tls(certificates["server.pem"], certificates["server.key"], None))
    with socket.create_connection(("127.0.0.1", shared.port)) as raw:
        raw.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with device_link.open(f"{shared.url}?tls={certificates['ca.pem']}") as dev:
            assert int(dev.id.magic.read()) == 0x46524F4D


@pytest.mark.parametrize("seed", range(3))
def test_garbage_ends_no_server(share, seed):
    rng = random.Random(seed)
    shared = share()
    with device_link.open(shared.url, writer=True) as dev:
        for _ in range(40):
            with socket.create_connection(("127.0.0.1", shared.port)) as raw:
                raw.sendall(rng.choice([
                    rng.randbytes(rng.randrange(1, 2000)), encode_frame(rng.randbytes(rng.randrange(3, 40))),
                    encode_frame(b"\x10\0\0" + rng.choice([b"{}", b"[]", b'{"op":"attach"}', b'{"op":"acquire"}',
                                                          b"\xff", b'{"op":"attach","client":[]}', b'{"op":[]}']))]))
            assert int(dev.id.magic.read()) == 0x46524F4D
        dev.id.scratch.write(9)
    assert shared.model.log == [(SCRATCH, 9)]


@pytest.mark.parametrize(("url", "error", "text"), [
    ("tcp://127.0.0.1:1", DeviceNotFound, "no server answers at 127.0.0.1:1 .*morphnic serve"),
    ("tcp://127.0.0.1:99999", InputError, "must be tcp://HOST:PORT with a port in 0..65535"),
    ("tcp://127.0.0.1:1/x", InputError, "must be tcp://HOST:PORT"),
    ("tcp://127.0.0.1:1?cert=/x", InputError, "add tls=system or tls=FILE"),
    ("tcp://127.0.0.1:1?tls=/nowhere", InputError, "certificates cannot be used"),
    ("tcp://127.0.0.1:1?speed=9", InputError, "unknown option speed; it knows cert, key, tls, token_file"),
    ("unix:///nowhere/d.sock", DeviceNotFound, "no server answers at /nowhere/d.sock .*morphnic serve"),
    ("unix://relative", InputError, "absolute path"),
])
def test_url_that_leads_to_no_server_says_why(url, error, text):
    with pytest.raises(error, match=text):
        device_link.open(url)


def test_transport_over_a_server_can_be_served_again(share):
    first = share()
    second = share(first.model, connect=lambda: device_link.open_transport(first.url, writer=True))
    with device_link.open(second.url, writer=True) as dev:
        dev.id.scratch.write(4)
    assert first.model.log == [(SCRATCH, 4)]
    assert isinstance(dev, Device)


def test_repeated_write_reaches_the_device_once(share):
    """No client of ours repeats on a stream; the server must not rely on that."""
    shared = share()
    with device_link.open(shared.url, writer=True) as dev:
        pipe, number = dev.transport.session.pipe, dev.transport.session.number
        request = Request(number, dev.transport.session._next_sequence,
                          encode_operations([Write(SCRATCH, (7,)), Read(SCRATCH)])).encode()
        answers = []
        for _ in range(3):
            pipe.send([request])
            answers += pipe.receive(5.0)
        assert len(answers) == 3
        assert len(set(answers)) == 1
    assert shared.model.log == [(SCRATCH, 7)]


def test_slow_device_is_waited_for_and_not_asked_again(share):
    class Slow(LoggedModel):
        reads = 0

        def read(self, address):
            if address == SCRATCH:
                self.reads += 1
                time.sleep(0.3)  # longer than a lost answer on a line would be waited for
            return super().read(address)

    shared = share(Slow())
    with device_link.open(shared.url, timeout=5.0) as dev:
        assert int(dev.id.scratch.read()) == 0
    assert shared.model.reads == 1


def test_connection_that_says_nothing_is_dropped_and_others_are_served(share, monkeypatch):
    monkeypatch.setattr("device_link.serving._ATTACH_SECONDS", 0.1)
    shared = share()
    with socket.create_connection(("127.0.0.1", shared.port), timeout=5) as silent:
        with device_link.open(shared.url) as dev:
            wait_for(lambda: int(dev.id.magic.read()) and len(shared.server.clients) == 1)
            time.sleep(0.15)
            assert int(dev.id.magic.read()) == 0x46524F4D, "who attached may be silent"
        assert silent.recv(1) == b""


def test_more_clients_than_there_is_room_for_are_turned_away(share, monkeypatch):
    monkeypatch.setattr("device_link.serving.MAX_CLIENTS", 2)
    shared = share()
    with device_link.open(shared.url), device_link.open(shared.url) as dev:
        with pytest.raises(LinkError):
            device_link.open(shared.url)
        assert int(dev.id.magic.read()) == 0x46524F4D
    wait_for(lambda: not shared.server.clients)
    device_link.open(shared.url).close()


@pytest.mark.slow
def test_client_that_asks_and_does_not_read_holds_up_itself_alone(share, monkeypatch):
    """Requests whose answers are five times as long, without end; 128 KB of them may be kept."""
    monkeypatch.setattr("device_link.connections._KEPT_BYTES", 1 << 17)
    shared = share()
    with device_link.open(shared.url) as greedy, device_link.open(shared.url) as dev:
        session = greedy.transport.session
        body = encode_operations([Read(0, 8)] * 80)
        request = encode_frame(Request(session.number, 0, body).encode())
        raw = session.pipe._socket
        raw.setblocking(False)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        most, slowest, rest, end = 0.0, 0.0, b"", time.monotonic() + 5
        while time.monotonic() < end:
            rest = rest or request * 100
            with contextlib.suppress(BlockingIOError):
                rest = rest[raw.send(rest):]
            started = time.monotonic()
            assert int(dev.id.magic.read()) == 0x46524F4D
            slowest = max(slowest, time.monotonic() - started)
            most = max(most, *(client.connection.backlog for client in list(shared.server.clients.values())))
        assert 0.9 < most < 1.5, "its answers were kept without end, or the flood was none"
        assert slowest < 0.5, "another client waits its turn, not for the whole flood"


def test_device_time_is_granted_through_the_server_by_the_writer_alone(share):
    granted = []

    class Stepped(SessionTransport):
        def _advance(self, cycles):
            granted.append(cycles)
            return {"ok": True, "ran": cycles, "cycle": sum(granted)}

    model = LoggedModel()

    def connect():
        transport = Stepped(DirectPipe(model), url="test://model", writer=True)
        transport.capabilities |= Capability.TIME_GRANTS
        return transport

    shared = share(model, connect=connect)
    with device_link.open(shared.url) as reader:
        assert reader.advance(100)["ran"] == 100, "nobody writes: anybody may let time pass"
        with device_link.open(shared.url, writer=True) as writer:
            assert writer.advance(50)["cycle"] == 150
            with pytest.raises(DeviceBusy, match="grants the time"):
                reader.advance(7)
        with pytest.raises(ValueError, match="cycles must be"):
            reader.advance(-1)
        assert "shared without 'waveform'" in reader.transport.session.pipe.ask({"op": "waveform"})["error"]
    assert granted == [100, 50]
