"""Typed register access: names, fields, arrays, and what a typing mistake gets."""

import json

import pytest

from device_link.device import Device
from device_link.linked import SessionTransport
from device_link.registers import RegisterMap, register_map
from device_link.transport import BusError
from morphnic.errors import InputError, RegisterMapMismatch
from tests.device_link.device_model import DeviceModel, DirectPipe


@pytest.fixture
def model():
    return DeviceModel()


@pytest.fixture
def dev(model):
    return Device(SessionTransport(DirectPipe(model), url="test://model", writer=True, seed=1))


def test_fields_are_read_by_name(dev, model):
    value = dev.id.config0.read()
    assert (value.ports, value.tenants, int(value)) == (4, 4, model.peek("id.config0"))
    assert value.fields == {"ports": 4, "tenants": 4, "slots": 2, "classifier_entries": 16}
    assert "tenants=0x4" in repr(value)


def test_partial_write_sets_the_other_fields_to_zero(dev, model):
    dev.classifier[2].action.write(enable=1, tenant=5)
    assert model.peek("classifier[2].action") == 1 | 5 << 8
    dev.classifier[2].action.write(port=3)
    assert model.peek("classifier[2].action") == 3 << 4


def test_modify_keeps_the_other_fields(dev, model):
    dev.classifier[2].action.write(enable=1, tenant=5)
    written = dev.classifier[2].action.modify(port=3)
    assert model.peek("classifier[2].action") == int(written) == 1 | 5 << 8 | 3 << 4
    assert written.port == 3


def test_whole_words_and_values_are_written(dev, model):
    dev.id.scratch.write(0xFFFFFFFF)
    value = dev.id.scratch.read()
    dev.id.scratch.write(0)
    dev.id.scratch.write(value)
    assert model.peek("id.scratch") == 0xFFFFFFFF


def test_elements_have_addresses_of_their_own(dev):
    assert dev.snapshot[2].bytes_in.address == 0x5000 + 2 * 64
    assert dev.staging[3].weight.address == 0x2000 + 3 * 32
    assert dev.staging[3].weight.name == "staging[3].weight"
    assert dev.register("staging[3].weight").address == dev.staging[3].weight.address


def test_several_registers_are_read_in_one_exchange(dev, model):
    sent = []
    send = dev.transport.session.pipe.send
    dev.transport.session.pipe.send = lambda messages, **options: (sent.extend(messages), send(messages, **options))
    values = dev.read([dev.id.magic, "id.scratch", dev.objective[1].slo])
    assert len(sent) == 1
    assert [int(value) for value in values] == [0x46524F4D, 0, 0]
    dev.write([(dev.id.scratch, 5), ("objective[1].host", {"cpu": 7, "memory": 9})])
    assert len(sent) == 2
    assert (model.peek("id.scratch"), model.peek("objective[1].host")) == (5, 7 | 9 << 8)


def test_memory_word_that_the_device_does_not_have_is_named(dev):
    with pytest.raises(BusError, match=r"histogram\[7\]"):
        dev.histogram.words(7, 3)


def test_cycle_counter_is_read_consistently_across_a_carry(dev, model):
    model.cycle = 0xFFFF_FFFF - 60
    assert dev.cycle() >= 0xFFFF_FFFF
    assert dev.cycle() < 0x1_0000_1000


@pytest.mark.parametrize(("access", "error", "text"), [
    (lambda dev: dev.snapshoot, AttributeError, "no register block 'snapshoot'; did you mean snapshot"),
    (lambda dev: dev.rm.statsu, AttributeError, "block rm has no register 'statsu'; did you mean status"),
    (lambda dev: dev.id.config0.read().tenant, AttributeError, "no field 'tenant'; did you mean tenants"),
    (lambda dev: dev.id.scratch.write(valeu=1), InputError, "no field 'valeu'; did you mean value"),
    (lambda dev: dev.staging.weight, AttributeError, r"is named staging\[i\].weight"),
    (lambda dev: dev.rm[0], InputError, "block rm is no array"),
    (lambda dev: dev.staging[64], InputError, r"index of staging must be in 0..63, not 64"),
    (lambda dev: dev.staging[-1], InputError, "index of staging"),
    (lambda dev: dev.staging[1][2], InputError, r"staging\[1\] is no array"),
    (lambda dev: list(dev.staging), TypeError, "iterate over range"),
    (lambda dev: dev.register("rm"), InputError, "a register is named block.register"),
    (lambda dev: dev.register("rm.nonsense"), InputError, "no register 'nonsense'"),
    (lambda dev: dev.register("rm[1].status"), InputError, "is named rm.status"),
    (lambda dev: dev.id.magic.write(1), InputError, "register id.magic cannot be written"),
    (lambda dev: dev.id.magic.write(magic=1), InputError, "id.magic cannot be written"),
    (lambda dev: dev.classifier[0].action.write(tenant=64), ValueError, r"tenant must be in 0..63, not 64"),
    (lambda dev: dev.classifier[0].action.write(tenant=-1), ValueError, "must be in 0..63"),
    (lambda dev: dev.id.scratch.write(), ValueError, "either a whole word or fields"),
    (lambda dev: dev.id.scratch.write(1, value=2), ValueError, "either a whole word or fields"),
    (lambda dev: dev.rm.words(), InputError, "block rm is no memory"),
    (lambda dev: dev.histogram.words(16384), ValueError, "must be within 0..16383"),
])
def test_mistake_is_named_with_what_was_probably_meant(dev, model, access, error, text):
    before = dict(model.words)
    with pytest.raises(error, match=text):
        access(dev)
    assert model.words == before


def test_names_are_offered_for_completion(dev):
    assert {"rm", "staging", "read"} <= set(dir(dev))
    assert "status" in dir(dev.rm)


def test_address_is_named():
    registers = register_map()
    assert registers.name_of(0x5000 + 2 * 64 + 4) == "snapshot[2].packets_in"
    assert registers.name_of(0x10000 + 4 * 300) == "histogram[300]"
    assert registers.name_of(0x1004) == "rm.status"
    assert registers.name_of(0x200) == "0x00200"


def test_every_register_has_an_address_of_its_own():
    registers = register_map()
    addresses = [register.address for block in registers
                 for index in (range(block.count) if block.count else [None]) for register in block.registers(index)]
    assert len(set(addresses)) == len(addresses)
    for block in registers:
        for index in range(block.count) if block.count else [None]:
            for register in block.registers(index):
                assert registers.name_of(register.address) == register.name
                assert registers.register(register.name) == register


def test_map_of_another_schema_is_refused():
    with pytest.raises(RegisterMapMismatch, match="schema 2"):
        RegisterMap(json.loads('{"schema": 2}'))
