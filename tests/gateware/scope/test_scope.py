"""The whole block, driven by the software that users have, against the golden model over what it was shown."""

import random

import pytest

from device_link.operations import Read
from device_link.registers import register_map
from device_link.scope import LogicAnalyzer, State
from device_link.scope.analyzer import ScopeTimeout
from device_link.transport import BusError
from gateware.scope.matcher import TABLE_WORDS
from morphnic.errors import InputError, LinkError, UnsupportedCapability
from tests.gateware.scope.model import capture_of, runs_of, trigger_of
from tests.gateware.scope.simulated import BITS, PROBES, ModelTransport, bursty, device_with

pytestmark = pytest.mark.slow  # together more than `make test-fast` has time for

VALID, PAYLOAD, STATE = 0, 1, 9  # places of the first bits
TENANT = 12

#: Triggers, and the same as Python over (sample, sample before): (condition, count) of each stage.
TRIGGERS = {
    "link.rx.valid": [(lambda now, before: now & 1, 1)],
    "rise(link.rx.valid) & link.rx.payload[7]": [(lambda now, before: now & 1 & ~before & now >> 8, 1)],
    "fabric.outputs0.header.valid & fabric.outputs0.header.tenant == 3":
        [(lambda now, before: now >> 11 & 1 and now >> TENANT == 3, 1)],
    "change(link.rx.payload) times 5 then manager.state == STAGING":
        [(lambda now, before: (now ^ before) >> PAYLOAD & 0xFF, 5), (lambda now, before: now >> STATE & 3 == 2, 1)],
    "link.rx.payload == 0bxx10_xxxx | link.rx.payload == 7 | fabric.outputs0.header.tenant != 0 & !link.rx.valid":
        [(lambda now, before: now >> 5 & 3 == 2 or now >> 1 & 0xFF == 7 or (now >> TENANT and not now & 1), 1)],
    "link.rx.valid times 2 then fall(link.rx.valid) then link.rx.valid times 3 then !link.rx.valid":
        [(lambda now, before: now & 1, 2), (lambda now, before: ~now & before & 1, 1),
         (lambda now, before: now & 1, 3), (lambda now, before: ~now & 1, 1)],
}


def trigger_in(samples, armed, stages):
    """Index, from `armed`, of the sample at which the sequence is complete."""
    matches = [sum(bool(holds(samples[index], samples[index - 1])) << place for place, (holds, _) in enumerate(stages))
               for index in range(armed, len(samples))]
    conditions = [sum(1 << word for word in range(16) if word >> place & 1) for place in range(len(stages))]
    return trigger_of(matches, [(condition, count)
                                for condition, (_, count) in zip(conditions, stages, strict=True)])


@pytest.mark.slow
@pytest.mark.parametrize("text", TRIGGERS)
@pytest.mark.parametrize("seed", range(2))
def test_capture_around_a_trigger_is_that_of_the_model(seed, text):
    rng = random.Random(f"{seed} {text}")
    before, cycles = rng.choice([0.0, 0.25, 0.75]), rng.choice([0, 0, 40])
    print(f"seed={seed} before={before} cycles={cycles}")
    device, block = device_with(bursty(seed, idle=rng.choice([0.3, 0.7, 0.95])))
    scope = LogicAnalyzer(device)
    block.run(rng.randrange(50))
    scope.arm(text, before=before, cycles=cycles)
    scope.wait(60)
    capture = scope.read()

    armed = block.armed_from()
    samples = block.samples[armed:]
    trigger = trigger_in(block.samples, armed, TRIGGERS[text])
    end, runs, triggered = capture_of(samples, trigger=trigger, rows=32, before=int(32 * before), after=cycles)
    assert triggered
    assert (capture.trigger, capture.end) == (armed + trigger, armed + end)
    assert list(capture.runs) == runs
    assert capture.samples() == block.samples[capture.start:capture.end]


def test_capture_can_be_stopped_before_its_trigger_and_begun_again():
    device, block = device_with(bursty(1))
    scope = LogicAnalyzer(device)
    scope.arm("fabric.outputs0.header.tenant == 3 & link.rx.payload == 0 times 60000")
    block.run(300)
    status = scope.stop()
    assert (status.state, status.triggered, status.rows) == (State.COMPLETE, False, 32)
    capture = scope.read()
    assert capture.trigger is None
    assert capture.samples() == block.samples[capture.start:capture.end]
    scope.arm()
    scope.wait(10)
    again = scope.read()
    assert again.trigger == again.start == block.armed_from(), "without a condition the first sample is the trigger"
    assert again.samples() == block.samples[again.start:again.end]


def test_capture_before_is_never_told_as_the_one_that_was_just_begun():
    """Software that looks in the very next access must not find the old capture complete."""
    device, block = device_with(bursty(3))
    status, control = (register_map().register(f"scope.{name}") for name in ("status", "control"))
    scope = LogicAnalyzer(device)
    scope.arm("link.rx.valid times 60000")
    scope.stop()
    assert scope.status().state is State.COMPLETE
    _, word = block.accesses([(control.address, 1), (status.address, None)])
    assert State(word >> status.fields["state"].lsb & 3) is State.WAITING


def test_device_describes_its_probes():
    device, _ = device_with(bursty(1))
    probes = LogicAnalyzer(device).probes
    assert [(probe.name, probe.width, probe.values) for probe in probes] == [tuple(probe) for probe in PROBES]
    assert [probe.low for probe in probes] == [0, 1, 9, 11, 12]


def test_rows_are_refused_until_the_capture_is_complete_and_writes_always():
    device, block = device_with(bursty(2))
    scope = LogicAnalyzer(device)
    rows, pattern = (device.map.block(name).address for name in ("scope_rows", "scope_pattern"))
    description = device.map.block("scope_description").address
    with pytest.raises(BusError):
        device.transport.read(rows)
    with pytest.raises(InputError, match="no capture to read \\(idle\\)"):
        scope.read()
    scope.arm("link.rx.valid times 65535")
    with pytest.raises(BusError):
        device.transport.read(rows)
    with pytest.raises(InputError, match="no capture to read \\(waiting\\)"):
        scope.read()
    scope.stop()
    held = device.transport.read(rows, 4)
    block.run(100)
    assert device.transport.read(rows, 4) == held, "a read changes nothing"
    for address in (rows, description):
        with pytest.raises(BusError):
            device.transport.write(address, 1)
    with pytest.raises(BusError):
        device.transport.read(pattern)
    assert device.transport.read(rows, 4) == held


def test_addresses_beyond_what_there_is_are_refused():
    device, _ = device_with(bursty(2))
    scope = LogicAnalyzer(device)
    scope.arm()
    scope.wait(10)
    tables = (BITS + 1) // 2
    end = device.map.block("scope_pattern").address + 4 * TABLE_WORDS * tables
    device.transport.write(end - 4, 0)
    with pytest.raises(BusError):
        device.transport.write(end, 0)
    rows = device.map.block("scope_rows").address
    device.transport.read(rows + 4 * 32 - 4)
    with pytest.raises(BusError):
        device.transport.read(rows + 4 * 32)


def test_another_capture_begun_while_one_is_read_is_an_error():
    device, block = device_with(bursty(3))
    scope = LogicAnalyzer(device)
    scope.arm(cycles=100)
    scope.wait(10)
    other = LogicAnalyzer(device)
    rows = device.map.block("scope_rows").address
    transport = device.transport
    real = transport._execute

    def interrupted(operations, *, ordered):
        words = real(operations, ordered=ordered)
        if isinstance(operations[0], Read) and operations[0].address >= rows:
            transport._execute = real
            other.arm()
            block.run(500)
        return words

    transport._execute = interrupted
    with pytest.raises(LinkError, match="another capture was begun while this one was read"):
        scope.read()


def test_wait_ends_with_the_stage_that_is_waited_for():
    device, _ = device_with(bursty(4))
    scope = LogicAnalyzer(device)
    scope.arm("link.rx.valid then link.rx.valid times 65535")
    with pytest.raises(ScopeTimeout, match=r"the trigger did not come \(condition 2 of the sequence.* within 0\.2 s"):
        scope.wait(0.2)
    assert scope.status().state is State.WAITING


def test_wait_without_a_capture_says_so():
    device, _ = device_with(bursty(4))
    with pytest.raises(InputError, match="no capture was begun"):
        LogicAnalyzer(device).wait(1)


def test_device_without_the_block_says_how_to_build_one():
    from device_link.device import Device
    from tests.device_link.device_model import DeviceModel

    with pytest.raises(UnsupportedCapability, match="has no logic analyzer: build the device with probes"):
        LogicAnalyzer(Device(ModelTransport(DeviceModel())))


@pytest.mark.parametrize(("arguments", "message"), [
    ({"before": 1.0}, "before must be a share in 0..1, below 1, not 1.0"),
    ({"cycles": -1}, "cycles behind the trigger must be in 0..4294967295, not -1"),
    ({"trigger": "link.rx.vlaid"}, "no probe 'link.rx.vlaid'; did you mean link.rx.valid"),
])
def test_wrong_arguments_leave_a_capture_as_it_is(arguments, message):
    device, _ = device_with(bursty(5))
    scope = LogicAnalyzer(device)
    scope.arm("link.rx.valid times 65535")
    with pytest.raises(InputError, match=message):
        scope.arm(**arguments)
    assert scope.status().state is State.WAITING
    assert scope.status().captures == 1


def test_runs_of_the_model_cover_every_cycle_once():
    samples = [sample for sample, _ in zip(bursty(6), range(500), strict=False)]
    assert [sample for sample, cycles in runs_of(samples, split=250, longest=7) for _ in range(cycles)] == samples
