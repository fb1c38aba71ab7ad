"""Commands on a device, typed by a user against a stand-in behind the real link protocol."""

import json

import pytest

from tests.morphnic.standin import StandIn
from tests.morphnic.test_command_line import one_line


def test_list_shows_and_probes_the_device(type_command, stand_in):
    assert "sim://stand-in" in type_command("list").stdout
    (device,) = json.loads(type_command("list", "--probe", "--json").stdout)["devices"]
    assert device["identity"]["uid"] == 0x1234
    assert device["identity"]["config"]["tenants"] == 16


def test_info_reads_identity_and_allocation(typed, stand_in):
    found = json.loads(typed("info", "--json").stdout)
    assert found["identity"]["config"]["pages"] == 64
    assert found["allocation"] == {
        "epoch": 3, "tag": 0, "state": "idle", "commits": 0, "rollbacks": 0, "refused": 0}
    assert found["cycle"] == 5000
    text = typed("info").stdout
    assert "100 MHz, cycle 5000 (5e-05 s since reset)" in text
    assert "4 ports x 64 bits, 64 pages" in text
    assert "16 reflex rules" in text
    assert "; no access patterns, no forecasts\n" in text


def test_two_devices_must_be_told_apart(typed, stand_in):
    other = StandIn("other")
    try:
        message = one_line(typed("info"), 1)
        assert "several devices" in message
        assert "sim://other, sim://stand-in" in message
        assert typed("info", "--device", "sim://other").returncode == 0
        assert typed("info", variables={"MORPHNIC_DEVICE": "sim://other"}).returncode == 0
    finally:
        other.finish()


def test_device_that_does_not_run_is_named(typed):
    assert "'nix'" in one_line(typed("info", "--device", "sim://nix"), 1)


def test_device_of_another_register_map_is_refused_with_the_remedy(typed, stand_in):
    stand_in.registers.set("id.map_hash", 0xDEAD)
    message = one_line(typed("info"), 1)
    assert "0x0000dead" in message
    assert "flash the bitstream of this version" in message


def test_register_is_read_by_name_field_and_address(typed, stand_in):
    stand_in.registers.set("rm.active", 0x203)
    done = typed("regs", "read", "rm.active", "rm.active.epoch", "0x1014", "--json")
    whole, field, address = json.loads(done.stdout)["registers"]
    assert whole == {"name": "rm.active", "address": 0x1014, "value": 0x203, "fields": {"epoch": 3, "bank": 2}}
    assert field == {"name": "rm.active.epoch", "address": 0x1014, "value": 3}
    assert address["name"] == "rm.active"
    assert typed("regs", "read", "rm.active").stdout == "0x01014  rm.active  0x203 (515)  epoch=3 bank=2\n"


def test_values_that_have_names_are_read_and_written_by_them(typed, stand_in):
    stand_in.registers.set("rm.status", 0x0305_0a03)
    whole, field = json.loads(typed("regs", "read", "rm.status", "rm.status.result", "--json").stdout)["registers"]
    assert whole["fields"] == {"state": 3, "busy": 0, "result": 10, "row": 5}
    assert whole["names"] == {"state": "awaiting", "result": "unknown_bit"}
    assert (field["value"], field["names"]) == (10, {"result": "unknown_bit"})
    assert typed("regs", "read", "rm.status", "rm.status.result").stdout.splitlines() == [
        "0x01004  rm.status         0x3050a03 (50661891)  state=awaiting busy=0 result=unknown_bit row=5",
        "0x01004  rm.status.result  0xa (10)  unknown_bit"]
    assert typed("regs", "write", "classifier[2].action.kind=mac", "classifier[3].action.kind=1").returncode == 0
    assert stand_in.registers.get("classifier[2].action") == 2 << 1
    assert stand_in.registers.get("classifier[3].action") == 1 << 1


def test_value_without_a_name_is_shown_as_a_number(typed, stand_in):
    stand_in.registers.set("rm.status", 0xF00)
    assert " state=idle busy=0 result=15 row=0" in typed("regs", "read", "rm.status").stdout


def test_write_of_a_field_keeps_the_other_fields(typed, stand_in):
    stand_in.registers.set("classifier[2].action", 0xABC0_00)
    done = typed("regs", "write", "classifier[2].action.enable=1", "classifier[2].action.tenant=5",
                        "id.scratch=0xC0FFEE")
    assert done.returncode == 0, done.stderr
    assert stand_in.registers.get("classifier[2].action") == (0xABC000 & ~(63 << 8)) | 5 << 8 | 1
    assert stand_in.registers.get("id.scratch") == 0xC0FFEE


@pytest.mark.parametrize(("arguments", "message"), [
    (("read", "rm.statu"), "did you mean status"),
    (("read", "rn.status"), "did you mean rm"),
    (("read", "rm.status.stat"), "did you mean state"),
    (("read", "status"), "block.register"),
    (("read", "staging[99].weight"), "index of staging must be in 0..63"),
    (("read", "staging.weight"), "staging[i].weight"),
    (("read", "0x1001"), "must be a multiple of 4"),
    (("read", "0x40000"), "below 0x40000"),
    (("read", "0xZZ"), "must be a number such as 12 or 0xC"),
    (("read",), "name at least one register"),
    (("write", "id.scratch"), "give REGISTER=VALUE"),
    (("write", "id.scratch=ten"), "must be a number"),
    (("write", "id.scratch=-1"), "must be a number"),
    (("write", "id.scratch=0x100000000"), "must be in 0..0xffffffff"),
    (("write", "staging[0].weight.weight=65536"), "must be in 0..0xffff"),
    (("write", "classifier[0].action.kind=vlna"), "must be a number or one of any, vlan, mac"),
    (("write", "rm.status=1"), "cannot be written"),
    (("write", "rm.status.state=1"), "cannot be written"),
    (("dump", "rmm"), "did you mean rm"),
    (("dump", "staging[64]"), "index of staging must be in 0..63"),
    (("frob", "rm"), "invalid choice"),
])
def test_wrong_arguments_are_refused_before_a_device_is_opened(typed, arguments, message):
    assert message in one_line(typed("regs", *arguments, "--device", "sim://does-not-exist"), 1)


def test_bus_error_names_the_register_and_nothing_is_made_up(typed, stand_in):
    message = one_line(typed("regs", "read", "staging[40].weight"), 1)
    assert "staging[40].weight" in message
    message = one_line(typed("regs", "write", "id.scratch=1", "staging[40].weight=2"), 1)
    assert "staging[40].weight" in message


def test_write_is_refused_with_the_remedy_while_a_manager_holds_the_device(typed, stand_in):
    stand_in.hold()
    message = one_line(typed("regs", "write", "id.scratch=5"), 1)
    assert "host-agent request" in message
    assert stand_in.registers.get("id.scratch") == 0
    assert typed("regs", "read", "id.scratch").returncode == 0


def test_dump_prints_the_rows_that_the_device_has(typed, stand_in):
    found = json.loads(typed("regs", "dump", "port", "staging[3]", "rm", "--json").stdout)["registers"]
    names = [one["name"] for one in found]
    assert "port[3].admitted" in names
    assert "port[4].admitted" not in names
    assert "staging[3].weight" in names
    assert "staging[4].weight" not in names
    everything = json.loads(typed("regs", "dump", "--json").stdout)["registers"]
    assert len(everything) == len({one["address"] for one in everything}) == len(stand_in.registers.words)


def test_dump_shows_which_registers_refuse_and_reads_all_others(typed, stand_in):
    """The device refuses `staging` outside a transaction."""
    for register in stand_in.registers.map.block("staging").registers(1):
        del stand_in.registers.words[register.address]
    stand_in.registers.set("staging[2].weight", 77)
    found = {one["name"]: one["value"] for one in json.loads(
        typed("regs", "dump", "staging", "rm", "--json").stdout)["registers"]}
    assert found["staging[1].weight"] is None
    assert found["staging[2].weight"] == 77
    assert found["rm.active"] == 3
    assert sum(value is None for value in found.values()) == 8
    assert "staging[1].weight      refused" in typed("regs", "dump", "staging[1]").stdout


def test_watch_prints_rates_by_the_devices_clock(typed, stand_in):
    registers = stand_in.registers
    for name, value in {"bytes_in": 125_000, "packets_in": 10, "bytes_out": 250_000, "packets_out": 10,
                        "latency_sum_low": 5000, "latency_max": 900, "slo_misses": 2}.items():
        registers.set(f"snapshot[3].{name}", value)
    done = typed("watch", "--windows", "1")
    assert done.returncode == 0, done.stderr
    head, columns, row = done.stdout.strip().splitlines()
    assert head.startswith("window 9: 100000 cycles from 0, epoch 3")
    cells = row.split("  ")
    assert [cell.strip() for cell in cells if cell.strip()] == [
        "3", "125 MB/s", "250 MB/s", "10", "0", "0", "0", "0", "0%", "0%", "5.00 us", "9.00 us", "2"]
    assert len(columns.split()) == 13


def test_watch_reads_again_when_the_window_ends_while_it_is_read(typed, stand_in):
    """The stand-in ends a window in the middle of the first snapshot, once."""
    registers = stand_in.registers
    last = registers.map.register("snapshot[7].bytes_in").address

    def end_a_window(address):
        if address == last and registers.get("analyzer.sequence") == 9:
            registers.set("analyzer.sequence", 10)
            for tenant in range(16):
                registers.set(f"snapshot[{tenant}].bytes_in", 1000)

    registers.on_read = end_a_window
    window = json.loads(typed("watch", "--windows", "1", "--json").stdout)
    assert window["number"] == 10
    assert [row["bytes_in"] for row in window["tenants"]] == [1000] * 16


def test_watch_gives_up_when_no_window_ends(typed, stand_in):
    stand_in.registers.set("analyzer.sequence", 0)
    assert "no window has ended for 0.2 s" in one_line(typed("watch", "--timeout", "0.2"), 1)
