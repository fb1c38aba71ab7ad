"""`morphnic scope`, typed by a user, on a device whose logic analyzer is the gateware's in Amaranth's simulator."""

import json
import os
import re
from pathlib import Path

import pytest
import pywellen

import device_link
from device_link.connect import open_transport
from tests.device_link.device_model import DeviceModel
from tests.device_link.server import SocketServer
from tests.gateware.scope.simulated import PROBES, ScopedModel, SimulatedScope, bursty
from tests.morphnic.test_command_line import one_line


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Amaranth's simulator may take a second for what a device does in microseconds."""
    monkeypatch.setitem(device_link.open.__kwdefaults__, "timeout", 30.0)


def served(model):
    return SocketServer(model, Path(os.environ["XDG_RUNTIME_DIR"]) / "morphnic" / "scoped", name="scoped")


@pytest.fixture
def scoped(home):
    """A device at sim://scoped; the block is its `model.scope`."""
    server = served(ScopedModel(SimulatedScope(bursty(1), rows=64)))
    yield server
    server.finish()


@pytest.fixture
def plain(home):
    """A device without the block."""
    server = served(DeviceModel())
    yield server
    server.finish()


def test_probes_are_listed_as_the_device_describes_them(typed, scoped):
    lines = typed("scope", "probes").stdout.splitlines()
    assert lines[0].split() == ["probe", "bits", "values"]
    assert [line.split()[:2] for line in lines[1:-1]] == [[name, str(bits)] for name, bits, _ in PROBES]
    assert "0=IDLE 2=STAGING" in lines[3]
    assert lines[-1] == "15 bits, 64 rows"
    document = json.loads(typed("scope", "probes", "--json").stdout)
    assert (document["kind"], document["bits"], document["rows"]) == ("scope-probes", 15, 64)
    assert document["probes"][2] == {"name": "manager.state", "width": 2, "values": {"0": "IDLE", "2": "STAGING"}}


@pytest.fixture(params=["sim", "tcp"])
def linked(request, scoped):
    """URL of the device, and the block."""
    tcp = request.param == "tcp" and f"tcp://127.0.0.1:{scoped.listen_tcp(('127.0.0.1', 0))}"
    return tcp or scoped.url, scoped.model.scope


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["vcd", "fst"])
def test_capture_is_a_file_with_the_probes_in_every_cycle(typed, linked, home, suffix):
    url, block = linked
    path = home / f"out.{suffix}"
    done = typed("scope", "capture", str(path), "--trigger", "rise(link.rx.valid) & manager.state == STAGING",
                 "--before", "50", "--json", "--timeout", "60", "--device", url)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["kind"] == "scope-capture"
    assert 32 < facts["rows"] <= 64, "half the buffer is for what follows the trigger"
    samples = block.samples
    now, before = samples[facts["trigger"]], samples[facts["trigger"] - 1]
    assert (now & 1, before & 1, now >> 9 & 3) == (1, 0, 2)
    low = 0
    variables = {variable.full_name: variable for variable in pywellen.Waveform(str(path)).all_vars()}
    for name, bits, _ in PROBES:
        changes = [(time, value if isinstance(value, int) else int(str(value), 2))
                   for time, value in variables[name].tv]
        for cycle in range(facts["first"], facts["end"]):
            shown = [value for time, value in changes if time <= cycle * 10_000][-1]
            assert shown == samples[cycle] >> low & (1 << bits) - 1, (name, cycle)
        low += bits
    saved = Path(facts["save_file"]).read_text()
    assert "fabric.outputs0.header.tenant[2:0]" in saved
    (names,) = re.findall(r"^\^\d+ (.*)\n\+\{state\} manager\.state\[1:0\]$", saved, re.M)
    assert Path(names).read_text().split() == ["0", "IDLE", "2", "STAGING"]


def test_capture_in_steps_and_what_each_says(typed, scoped, home):
    assert typed("scope", "status").stdout.startswith("idle; 0 of 64 rows; 0 captures since reset")
    assert "no capture was begun since the device's reset: arm it first" in one_line(typed("scope", "wait"), 1)
    armed = typed("scope", "arm", "--trigger", "link.rx.valid times 65535")
    assert armed.stdout.startswith("waiting, for condition 1; ")
    assert "there is no capture to read (waiting)" in one_line(typed("scope", "save", str(home / "out.vcd")), 1)
    late = one_line(typed("scope", "wait", "--timeout", "0.1"), 1)
    assert "the trigger did not come (condition 1 of the sequence" in late
    stopped = typed("scope", "stop").stdout
    assert stopped == "complete, stopped before the trigger; 64 of 64 rows; 1 captures since reset\n"
    done = typed("scope", "save", str(home / "out.vcd"))
    assert "in 64 rows, stopped before the trigger; gtkwave " in done.stdout
    status = json.loads(typed("scope", "status", "--json").stdout)
    assert {key: status[key] for key in ("kind", "state", "triggered", "condition", "rows", "captures")} == {
        "kind": "scope-status", "state": "complete", "triggered": False, "condition": 1, "rows": 64, "captures": 1}


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "message"), [
    (("capture", "out.vcd", "--trigger", "link.rx.vaild"), "no probe 'link.rx.vaild'; did you mean link.rx.valid"),
    (("arm", "--trigger", "link.rx.valid &"), "the name of a probe must stand at column 16"),
    (("arm", "--trigger", "link.rx.payload == 300"), "a value of 8 bits must stand at column 20"),
    (("arm", "--before", "100"), "--before must be in 0..99 percent, not 100"),
    (("arm", "--cycles", "-1"), "cycles behind the trigger must be in 0..4294967295, not -1"),
    (("wait", "--timeout", "-1"), "--timeout must be at least 0"),
    (("save",), "name the file to write, such as `morphnic scope save out.vcd`"),
    (("status", "out.vcd"), "status writes no file"),
    (("save", "out.png"), "a capture is written as .vcd or .fst, not as 'out.png'"),
    (("save", "no/out.vcd"), "the folder does not exist"),
    (("look",), "invalid choice: 'look'"),
])
def test_wrong_arguments_are_one_line_and_leave_the_device_alone(typed, scoped, monkeypatch, home, arguments, message):
    monkeypatch.chdir(home)
    done = typed("scope", *arguments)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert typed("scope", "status").stdout.startswith("idle; ")
    assert not list(home.glob("*.vcd*"))


@pytest.mark.parametrize("action", [("probes",), ("status",), ("arm",), ("stop",), ("save", "out.vcd")])
def test_device_without_a_logic_analyzer_says_how_to_build_one(typed, plain, action):
    assert "sim://scoped has no logic analyzer: build the device with probes" in one_line(typed("scope", *action), 1)


def test_capture_that_is_interrupted_goes_on_in_the_device_and_leaves_no_file(typed, scoped, monkeypatch, home):
    from device_link.scope import LogicAnalyzer

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LogicAnalyzer, "wait", interrupted)
        done = typed("scope", "capture", str(home / "out.vcd"), "--trigger", "link.rx.valid times 65535")
    assert (done.returncode, done.stdout) == (130, "")
    assert not list(home.glob("out*"))
    assert typed("scope", "status").stdout.startswith("waiting")


def test_device_that_another_holds_can_be_looked_at_and_not_armed(typed, scoped):
    with open_transport("sim://scoped", writer=True):
        done = typed("scope", "arm")
        assert done.returncode == 1
        assert "offload manager" in done.stderr
        assert typed("scope", "status").returncode == 0
