"""The board: register access, traffic, scoreboard, serial line, twin, waveforms, determinism."""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from morphnic.errors import InputError, LinkError, LinkTimeout
from sim.board import PACKET, TWIN, Board, Outcome, Ready, Stop
from tests.sim.conftest import host_packets, standin_model
from tests.sim.standin import MAGIC, REG_FAULT, REG_MUTE, REG_NO_CREDIT, WINDOW_CYCLES, WINDOW_WORDS, Fault

PROCESS = 15


@pytest.mark.slow
def test_register_read_returns_what_was_written(board):
    board.write(0xC, 0xDEADBEEF)
    assert board.read(0xC) == 0xDEADBEEF
    board.write(0xC, 0x11223344, mask=0b0101)
    assert board.read(0xC) == 0xDE22BE44
    assert board.read(0) == MAGIC


def test_register_that_does_not_exist_raises_with_its_address(board):
    with pytest.raises(LinkError, match="0x00014"):
        board.read(5)
    with pytest.raises(LinkError, match="write to register 0x00000"):
        board.write(0, 1)


def test_register_that_never_answers_raises_a_timeout_and_the_bus_recovers(board):
    with pytest.raises(LinkTimeout, match="0x000c0"):
        board.read(REG_MUTE)
    assert board.read(0) == MAGIC


def test_cycle_counter_of_the_device_is_the_boards(board):
    board.advance(1234)
    assert board.cycle == board.device_cycle == 1234


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("ready", [(Ready.ALWAYS, 0, 0), (Ready.RANDOM, 20000, 0), (Ready.PERIODIC, 1, 7)])
def test_every_packet_of_a_loop_comes_back_intact(board, seed, ready):
    board.sink(0, ready[0], ready[1], ready[2], seed=seed)
    board.load(host_packets(300, seed))
    assert board.drain(1_000_000)
    account = board.account()
    assert account.clean, str(account)
    assert account.delivered == 300
    records = board.completions()
    assert sorted(records["index"].tolist()) == list(range(300))
    assert set(records["path"]) == {Outcome.FORWARDED}
    assert np.all(records["arrival"] <= records["admitted"])
    assert np.all(records["admitted"] < records["done"])


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "name"), [
    (Fault.LOSE, "lost"), (Fault.DUPLICATE, "duplicated"), (Fault.CORRUPT, "corrupted"),
    (Fault.REORDER, "reordered"), (Fault.MISROUTE, "misrouted"), (Fault.SHORTEN, "corrupted"),
])
@pytest.mark.parametrize("nth", [0, 7, 49])
def test_scoreboard_counts_exactly_the_injected_fault(board, fault, name, nth):
    if fault is Fault.REORDER and nth == 49:
        nth = 48  # the last packet has nobody to be overtaken by
    board.write(REG_FAULT, fault.value | nth << 16)
    board.load(host_packets(50, 11, tenants=1), at=board.cycle)
    board.drain(200_000)
    account = board.account()
    assert not account.clean
    wrong = {key for key in ("lost", "duplicated", "reordered", "corrupted", "misrouted", "unexpected")
             if getattr(account, key)}
    assert wrong == {name}
    assert getattr(account, name) == 1
    assert account.delivered == 50 - (fault not in (Fault.DUPLICATE, Fault.REORDER))
    if fault is Fault.LOSE:
        assert board.unfinished().tolist() == [nth]
    else:
        assert nth in board.faults()["index"].tolist()


def test_dropped_by_policy_is_not_lost_but_more_than_that_is(board):
    board.write(REG_FAULT, Fault.LOSE.value | 3 << 16)
    board.load(host_packets(10, 1), at=board.cycle)
    board.drain(50_000)
    assert board.account(dropped=1).clean
    assert board.account(dropped=0).lost == 1
    assert board.account(dropped=2).lost == -1
    assert not board.account(dropped=2).clean


def test_frames_from_the_network_are_compared_too(board):
    rows = np.zeros(40, PACKET)
    rows["port"] = np.arange(40) % 2 + 1
    rows["destination"] = rows["port"]
    rows["length"] = np.arange(60, 100)
    rows["seed"] = np.arange(40)
    rows["offset"] = -1
    rows["vlan"] = 100
    board.load(rows)
    assert board.drain(100_000)
    assert board.account().clean
    assert board.ports()[1:, 0].tolist() == [20, 20]


def test_payload_bytes_from_a_buffer_are_sent_as_they_are(board):
    payload = bytes(range(256)) * 4
    rows = host_packets(4, 1)
    rows["offset"], rows["length"] = [0, 100, 500, 1000], [100, 400, 500, 24]
    board.load(rows, payload)
    board.load(rows, payload[::-1], at=10_000)
    assert board.drain(100_000)
    assert board.account().clean
    assert board.account().delivered == 8


def test_one_tenant_without_traffic_does_not_delay_another_and_order_is_by_arrival(board):
    rows = host_packets(64, 5, tenants=4, spacing=0)
    board.load(rows)
    assert board.drain(100_000)
    records = board.completions()
    for tenant in range(4):
        mine = records["index"][records["tenant"] == tenant]
        assert mine.tolist() == sorted(mine.tolist())
    # All arrive at once: while every queue has packets, round robin takes them in turn.
    assert set(records["tenant"][:4]) == {0, 1, 2, 3}


def test_tenant_without_credit_waits_alone(board):
    board.write(REG_NO_CREDIT, 1 << 2)
    board.load(host_packets(40, 5, tenants=4, spacing=0), at=board.cycle)
    assert not board.drain(100_000)
    rows = board.tenants()
    assert rows["done_packets"][[0, 1, 3]].tolist() == rows["offered_packets"][[0, 1, 3]].tolist()
    assert rows["done_packets"][2] == 0
    assert rows["backlog"][2] == rows["offered_packets"][2] > 0
    board.write(REG_NO_CREDIT, 0)
    assert board.drain(100_000)
    assert board.account().clean


def test_latency_counts_from_arrival_not_from_entry(board):
    rows = host_packets(20, 3, tenants=1, spacing=0)
    rows["arrival"] = 0
    rows["length"] = 160
    board.load(rows)
    assert board.drain(100_000)
    done = board.completions()["done"]
    assert np.all(np.diff(done.astype(np.int64)) >= 20)
    assert board.completions()["arrival"].tolist() == [0] * 20


def test_processing_on_the_host_is_modelled_and_its_crc_is_right(board):
    board.twin(cores=2, cycles_per_packet=1000, cycles_per_byte=0.5)
    payload = np.random.default_rng(4).integers(0, 256, 4000, dtype=np.uint8).tobytes()
    rows = np.zeros(10, PACKET)
    rows["destination"], rows["flow_class"], rows["length"] = PROCESS, 9, 400
    rows["offset"] = np.arange(10) * 400
    board.load(rows, payload)
    # The stand-in does not resolve the destination: the header keeps PROCESS, and the scoreboard says so.
    assert board.drain(100_000)
    twins = board.twins()
    assert twins.dtype == TWIN
    assert len(twins) == 10
    for record in twins:
        start = int(rows["offset"][record["index"]])
        assert int(record["crc"]) == google_crc32c.value(payload[start:start + 400])
        assert board.payload(int(record["index"])) == payload[start:start + 400]
        assert record["done"] - record["started"] == 1000 + 200
    # Two cores: never more than two at work at any time.
    events = sorted([(int(r["started"]), 1) for r in twins] + [(int(r["done"]), -1) for r in twins])
    running = np.cumsum([step for _, step in sorted(events)])
    assert running.max() == 2
    assert set(board.completions()["path"]) == {Outcome.HOST_TWIN}


def test_payload_of_a_packet_that_was_not_loaded_is_refused(board):
    board.load(host_packets(2, 3, tenants=1))
    with pytest.raises(ValueError, match="index must be below the 2 packets loaded"):
        board.payload(2)


def test_windows_arrive_whole_and_in_order(board):
    board.advance(5 * WINDOW_CYCLES + 500)
    windows = board.windows()
    assert [len(window) for window in windows] == [WINDOW_WORDS] * 6
    assert [int(window[1]) for window in windows] == list(range(6))
    assert board.windows() == []


def test_advance_stops_at_a_window(board):
    ran = board.advance(100_000, Stop.WINDOW)
    assert ran < WINDOW_CYCLES
    assert len(board.windows()) == 1
    assert board.advance(100_000, Stop.WINDOW) == WINDOW_CYCLES


def test_link_bytes_pass_on_the_byte_stream_and_bit_by_bit(board):
    data = bytes(range(256))
    board.link_write(data)
    board.advance(2 * 256 + 20)
    assert board.link_read() == data
    board.link_mode(pins=True, divisor=16)
    board.link_write(data)
    board.advance(255 * 160)
    assert len(board.link_read()) < 256  # 10 bits of 16 cycles a byte: not yet over
    board.advance(300)
    assert board.link_unsent == 0
    assert board.stats()["framing_errors"] == 0


def test_bit_accurate_line_gives_the_bytes_back(board):
    board.link_mode(pins=True, divisor=8)
    board.link_write(b"\x00\xff\x55\xaa")
    board.advance(4 * 80 + 20)
    assert board.link_read() == b"\x00\xff\x55\xaa"


def test_paced_link_takes_the_time_of_the_wire(board):
    board.link_mode(cycles_per_byte=100)
    board.link_write(b"x" * 20)
    board.advance(1000)
    assert len(board.link_read()) == 10


@pytest.mark.parametrize("seed", [21, 22])
def test_same_calls_give_the_same_bytes(seed):
    def run() -> tuple[bytes, ...]:
        with Board(model=standin_model(), log_inputs=False) as board:
            board.sink(0, Ready.RANDOM, 30000, seed=seed)
            board.load(host_packets(200, seed))
            board.advance(777)
            board.read(0)
            board.drain(200_000)
            return (board.completions().tobytes(), repr(board.stats()).encode(),
                    b"".join(window.tobytes() for window in board.windows()))

    assert run() == run()


def test_reset_starts_from_power_on(board):
    board.load(host_packets(10, 1))
    board.drain(10_000)
    board.write(0xC, 5)
    nonce = board.read(6)
    board.reset()
    assert board.cycle == 0
    assert board.read(0xC) == 0
    assert board.read(6) != nonce
    assert board.account().offered == 0


@pytest.mark.parametrize(("field", "value", "rule"), [
    ("length", 0, "length must be in"), ("length", 2049, "length must be in"), ("tenant", 16, "tenant must be below"),
    ("port", 3, "port must be one of"), ("offset", 5, "within the payload"), ("destination", 16, "destination"),
])
def test_bad_packet_is_refused_with_its_number(board, field, value, rule):
    rows = host_packets(5, 1)
    rows[field][3] = value
    with pytest.raises(InputError, match=rf"packet 3: .*{rule}"):
        board.load(rows)
    assert board.account().offered == 0


@pytest.mark.slow
def test_waveform_around_a_trigger_shows_the_cycles_asked_for(board, tmp_path: Path):
    board.write(REG_FAULT, Fault.CORRUPT.value | 20 << 16)
    board.load(host_packets(50, 3), at=board.cycle)
    board.drain(50_000)
    cycle = board.trigger_cycle("fault")
    path = tmp_path / "wave.vcd"
    first, end = board.waveform(path, trigger="fault", before=50, cycles=120)
    assert (first, end) == (cycle - 50, cycle + 70)
    stamps = [int(line[1:]) for line in path.read_text().splitlines() if line.startswith("#")]
    assert stamps[0] == first * 10
    assert stamps[-1] == (end - 1) * 10 + 5
    save = path.with_suffix(".gtkw").read_text()
    assert f'[dumpfile] "{path.resolve()}"' in save
    assert "-host_rx__header__payload\n" in save, "a structure is a group of its fields"
    assert "} top.board_top.dut.host_rx__header__payload.tenant[5:0]\n" in save
    # The corrupted bit is visible: the cycle counter of the device names the cycle.
    assert board.waveform(path, start=10, cycles=5) == (10, 15)
    with pytest.raises(InputError, match="has not happened"):
        board.waveform(path, start=board.cycle + 1)
    with pytest.raises(InputError, match="has not happened"):
        board.trigger_cycle("epoch")
