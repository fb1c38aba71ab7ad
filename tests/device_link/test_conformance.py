"""The conformance suite: passes on a good device, and each check fails on a device with the fault it looks for."""

import json
from xml.etree import ElementTree

import pytest

from device_link import conformance
from device_link.conformance.runner import CHECKS
from device_link.device import Device
from device_link.linked import SessionTransport
from device_link.recording import Recorder
from device_link.replay import ReplayTransport
from device_link.responder import BusFault
from device_link.transport import Capability
from device_link.window import Window
from gateware.config import DeviceConfig
from morphnic.errors import InputError
from tests.device_link.device_model import DeviceModel, DirectPipe


def open_model(model, **options):
    transport = SessionTransport(DirectPipe(model, **options), url="test://model", writer=True, seed=1)
    transport.capabilities |= Capability.CONTROL
    return Device(transport)


def outcomes(report):
    return {result.name: (str(result.outcome), result.message) for result in report.results}


@pytest.mark.parametrize("reliable", [True, False])
@pytest.mark.parametrize("config", [DeviceConfig(), DeviceConfig(tenants=2, ports=2, slots=1, pages=32)])
def test_every_check_passes_on_a_good_device(config, reliable):
    report = conformance.run_on(open_model(DeviceModel(config), reliable=reliable))
    assert outcomes(report) == {check.name: ("pass", "") for check in CHECKS}
    assert report.passed


def run_one(device, name):
    [result] = conformance.run_on(device, checks=[check for check in CHECKS if check.name == name]).results
    return str(result.outcome), result.message


def faulty(name, **parts):
    """A model with a fault: `read` and `write` get the model's own function first."""
    model = DeviceModel()
    for part, function in parts.items():
        own = getattr(model, part)
        setattr(model, part, lambda *args, own=own, function=function: function(own, model, *args))
    return name, model


def slow_to_expire(own, model, cycles=1):
    if model.manager.state != 3:
        own(cycles)


def manager_fault(name, attribute, function):
    case = faulty(name)
    own = getattr(case[1].manager, attribute)
    setattr(case[1].manager, attribute, lambda *args: function(own, case[1], *args))
    return case


def at(model, name):
    return model.map.register(name).address


def keep_guarantees(own, model):
    model.manager.guarantees = [(0, 0)] * model.config.tenants
    return own()


def forgetful_roll_back(own, model):
    own()
    model.manager.active_table[1]["rate"] ^= 1
    return 0, 0


def push_damaged(change):
    def function(own, model):
        own()
        model.pushed = type(model.pushed)(change(message) for message in model.pushed)
    return function


def with_cycles(message):
    window = Window.decode(message[3:])
    return message[:3] + Window(window.number, window.start, window.cycles, window.epoch, 0, 0,
                                window.rows[:-1]).encode()


def lose_second(own, model):
    before = len(model.pushed)
    own()
    if len(model.pushed) > before and Window.decode(model.pushed[-1][3:]).number % 3 == 1:
        model.pushed.pop()


def drop_read_only_error(own, model, address, word):
    if address == at(model, "id.magic"):
        model.words[address] = word
    else:
        own(address, word)


def dead_lane(own, model, address, word):
    own(address, word & 0xFF00_FFFF if address == at(model, "id.scratch") else word)


def answer_everywhere(own, model, address):
    try:
        return own(address)
    except BusFault:
        return 0


def write_anywhere(own, model, address, word):
    try:
        own(address, word)
    except BusFault:
        if address == 0x3_FFFC:
            model.poke("link.control", 1)
        raise


def stuck_slo(own, model, address, word):
    own(address, word | 1 if address == at(model, "objective[2].slo") else word)


def lost_packet(own, model, word):
    own(word)
    if word & 1:
        model.poke("generator.missequenced", 1)


def accept_stale_token(own, model, op):
    token, model.manager.held["token"] = model.manager.held["token"], model.manager.held["owner_token"]
    own(op)
    model.manager.held["token"] = token


FAULTS = [
    faulty("identity", read=lambda own, model, address: own(address) + (address == 0x08) * model.cycle),
    faulty("device-time", read=lambda own, model, address: 5 if address == at(model, "id.cycle_lo") else own(address)),
    faulty("scratch", write=dead_lane),
    faulty("read-only", write=drop_read_only_error),
    faulty("unmapped", read=answer_everywhere),
    faulty("unmapped", write=write_anywhere),
    faulty("absent-rows", read=answer_everywhere),
    faulty("lists", read=answer_everywhere),
    faulty("long-lists", write=stuck_slo),
    faulty("windows", _pass_time=push_damaged(with_cycles)),
    faulty("windows", _pass_time=lose_second),
    manager_fault("allocation-roll-back", "_roll_back", forgetful_roll_back),
    manager_fault("allocation-confirm", "_confirm", lambda own, model: model.manager._roll_back()),
    manager_fault("allocation-expire", "tick", slow_to_expire),
    manager_fault("allocation-refusals", "_check", lambda own, model: (0, 0)),
    manager_fault("allocation-refusals", "_check", keep_guarantees),
    manager_fault("allocation-fencing", "_execute", accept_stale_token),
    faulty("generator-loop", _generate=lost_packet),
]


@pytest.mark.parametrize(("name", "model"), FAULTS, ids=[f"{index}-{name}" for index, (name, _) in enumerate(FAULTS)])
def test_check_fails_on_the_fault_it_looks_for(name, model, monkeypatch):
    monkeypatch.setattr("device_link.conformance.bench.time.monotonic", lambda: model.cycle / 1e4)
    outcome, message = run_one(open_model(model), name)
    assert outcome == "fail", message
    assert message


def test_device_is_left_as_it_was_found():
    model = DeviceModel()
    model.poke("id.scratch", 7)
    before = dict(model.words)
    conformance.run_on(open_model(model))
    moved = {model.registers[address].name for address, word in model.words.items() if before.get(address, 0) != word}
    assert moved <= {"generator.sent", "generator.received", "port[0].admitted"}
    assert model.manager.state == 0


def test_check_that_does_not_apply_is_skipped_with_the_reason():
    device = open_model(DeviceModel())
    device.transport.capabilities = Capability.REGISTERS
    assert run_one(device, "windows") == ("skip", "the link has no WINDOWS")


def test_recorded_run_is_replayed_without_the_device(tmp_path):
    record = tmp_path / "session.jsonl"
    device = open_model(DeviceModel())
    device.transport.recorder = Recorder(record, url="test://model", capabilities=[
        one.name for one in device.transport.capabilities])
    first = conformance.run_on(device)
    device.close()
    replayed = Device(ReplayTransport(record, url="replay://", writer=True), check=False)
    second = conformance.run_on(replayed)
    assert outcomes(second) == outcomes(first)


def test_report_is_valid_junit_and_json(tmp_path):
    model = DeviceModel()
    model.poke("id.magic", MAGIC := 0x46524F4D)
    device = open_model(model)
    model.write = faulty("", write=dead_lane)[1].write
    report = conformance.run_on(device, checks=[check for check in CHECKS if check.name in ("identity", "scratch")])
    report.write(junit=tmp_path / "report.xml", report=tmp_path / "report.json")
    suite = ElementTree.parse(tmp_path / "report.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert [case.get("name") for case in suite.iter("testcase")] == ["identity", "scratch"]
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["schema"] == 1
    assert document["counts"] == {"pass": 1, "warn": 0, "fail": 1, "skip": 0}
    assert not document["passed"]
    assert MAGIC


def test_unknown_check_is_refused_with_those_that_exist():
    with pytest.raises(InputError, match="no check nonsense; there are identity"):
        conformance.run("sim://nowhere", only=["nonsense"])
