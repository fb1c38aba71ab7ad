"""Workloads: readers on good and bad files, segmentation, load, merging, the file format."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateware.config import DeviceConfig
from morphnic.errors import InputError
from sim.requests import REQUEST, Requests
from sim.traces import read_mqsim, read_msr, read_pcap, read_trace, read_vscsi
from sim.workloads import (
    FlowClass,
    Workload,
    cut,
    from_frames,
    from_requests,
    interleave,
    merge,
    offering,
    on_off,
    poisson,
)

CONFIG = DeviceConfig()
DATA = Path(os.environ.get("MORPHNIC_DATA") or "../shared/data")


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_mqsim_columns_are_read(tmp_path):
    path = write(tmp_path, "t.trace", "1000 3 8 16 1\n500 2 100 1 0\n\n# comment\n2000 3 24 8 1\n")
    requests = read_mqsim(path)
    assert requests.rows.tolist() == [(500, 2, 100, 512, True), (1000, 3, 8, 8192, False), (2000, 3, 24, 4096, False)]
    assert requests.streams == [2, 3]
    assert requests.bytes == 512 + 8192 + 4096


def test_msr_columns_are_read_and_disks_numbered(tmp_path):
    path = write(tmp_path, "t.csv", "128166372003061629,usr,0,Read,7014609920,24576,41286\n"
                                    "128166372016382155,usr,1,Write,1317441536,8192,1963\n"
                                    "128166372026382245,usr,0,Write,2436440064,100,1835\n")
    requests = read_msr(path)
    assert requests.rows["stream"].tolist() == [0, 1, 0]
    assert requests.rows["time"].tolist() == [0, 1332052600, 2332061600]
    assert requests.rows["size"].tolist() == [24576, 8192, 512]
    assert requests.rows["write"].tolist() == [False, True, True]
    assert requests.rows["lba"][0] == 7014609920 // 512


def test_vscsi_text_is_read(tmp_path):
    requests = read_vscsi(write(tmp_path, "t.vscsi", "Read 0.5 100 8\nWrite 0.25 7 1\n"), stream=4)
    assert requests.rows.tolist() == [(250_000_000, 4, 7, 512, True), (500_000_000, 4, 100, 4096, False)]


@pytest.mark.parametrize(("reader", "good", "bad", "words"), [
    (read_mqsim, "1 2 3 4 1\n", "1 2 3 4", "4 fields instead of 5"),
    (read_mqsim, "1 2 3 4 1\n", "1 2 x 4 1", "LBA that is no integer"),
    (read_mqsim, "1 2 3 4 1\n", "1 2 3 4 7", "type of 7"),
    (read_mqsim, "1 2 3 4 1\n", "1 2 3 0 1", "sectors of 0"),
    (read_mqsim, "1 2 3 4 1\n", "-1 2 3 4 1", "arrival ns of -1"),
    (read_msr, "1,h,0,Read,0,512,1\n", "1,h,0,Erase,0,512,1", "Read or Write"),
    (read_msr, "1,h,0,Read,0,512,1\n", "1,h,0,Read,0,512", "6 fields instead of 7"),
    (read_msr, "1,h,0,Read,0,512,1\n", "1,h,0,Read,0,,1", "size that is no integer"),
    (read_vscsi, "Read 1 2 3\n", "Read 1s 2 3", "no number of seconds"),
    (read_vscsi, "Read 1 2 3\n", "Trim 1 2 3", "Read or Write"),
])
def test_bad_line_is_named(tmp_path, reader, good, bad, words):
    path = write(tmp_path, "bad.trace", good + good + bad + "\n" + good)
    with pytest.raises(InputError, match=rf"bad\.trace: line 3 has .*{words}"):
        reader(path)


def test_unreadable_empty_and_binary_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.trace: cannot be read"):
        read_mqsim(tmp_path / "none.trace")
    with pytest.raises(InputError, match="empty"):
        read_mqsim(write(tmp_path, "e", ""))
    with pytest.raises(InputError, match="no requests"):
        read_mqsim(write(tmp_path, "c", "# only a comment\n"))
    (tmp_path / "b").write_bytes(b"1 2 3 4 1\n\x1f\x8b\xff")
    with pytest.raises(InputError, match="line 2 is not text"):
        read_mqsim(tmp_path / "b")


@pytest.mark.parametrize(("text", "write_flags"), [
    ("1 2 3 4 1\n", [False]), ("1,h,0,Write,0,512,1\n", [True]), ("Write 1 2 3\n", [True]),
])
def test_kind_of_a_trace_is_told_from_its_first_line(tmp_path, text, write_flags):
    assert read_trace(write(tmp_path, "any", text)).rows["write"].tolist() == write_flags


def capture(tmp_path: Path, frames: list[bytes], link: int = 1) -> Path:
    data = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    for index, frame in enumerate(frames):
        data += struct.pack("<IIII", 10, index * 100, len(frame), len(frame)) + frame
    path = tmp_path / "c.pcap"
    path.write_bytes(data)
    return path


def ipv4(source: int, target: int, size: int = 60) -> bytes:
    header = bytes(6) + bytes([2, 0, 0, 0, 0, source]) + b"\x08\x00"
    return header + bytes(12) + bytes([10, 0, 0, source, 10, 0, 0, target]) + bytes(i % 251 for i in range(size - 34))


def test_frames_of_a_pair_of_addresses_go_to_one_tenant_with_its_tag(tmp_path):
    frames = read_pcap(capture(tmp_path, [ipv4(1, 2), ipv4(2, 1, 70), ipv4(3, 1), b"\0" * 20]))
    assert frames.rows["flow"].tolist() == [0, 0, 1, -1]
    workload = from_frames(frames, CONFIG, port=1, destination=0, tenants=[5, 6], compression=1.0)
    assert workload.packets["tenant"].tolist() == [5, 5, 6, 5]
    assert workload.packets["length"].tolist() == [64, 74, 64, 24]
    assert workload.packets["arrival"].tolist() == [0, 10_000, 20_000, 30_000]
    for row, original in zip(workload.packets, [ipv4(1, 2), ipv4(2, 1, 70), ipv4(3, 1), b"\0" * 20], strict=True):
        start = int(row["offset"])
        frame = workload.payload[start:start + int(row["length"])]
        assert frame == original[:12] + b"\x81\x00" + (100 + int(row["tenant"])).to_bytes(2, "big") + original[12:]


def test_captures_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(InputError, match=r"x: no pcap"):
        read_pcap(write(tmp_path, "x", "this is no capture at all, it is text"))
    with pytest.raises(InputError, match="link type 101"):
        read_pcap(capture(tmp_path, [ipv4(1, 2)], link=101))
    with pytest.raises(InputError, match="packet 1 has 3 bytes"):
        read_pcap(capture(tmp_path, [ipv4(1, 2), b"abc"]))
    long = read_pcap(capture(tmp_path, [ipv4(1, 2), ipv4(1, 2, 3000)]))
    with pytest.raises(InputError, match=r"c\.pcap: packet 1 has 3000 bytes"):
        from_frames(long, CONFIG, port=1, destination=0, tenants=[1], load=0.5)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(16, 20_000), min_size=1, max_size=30), st.integers(32, 2048))
def test_cutting_conserves_bytes_and_order(sizes, segment):
    lengths, owner, position = cut(np.array(sizes), segment)
    assert np.bincount(owner, weights=lengths).astype(int).tolist() == sizes
    assert lengths.min() >= 16
    assert lengths.max() <= segment
    assert np.all(np.diff(owner) >= 0)
    for request, size in enumerate(sizes):
        mine = position[owner == request]
        assert mine.tolist() == list(range(-(-size // segment)))


def rows(*entries: tuple[int, int, int, int, bool]) -> Requests:
    return Requests(np.array(list(entries), REQUEST), "made", "0" * 64)


def test_packets_of_a_request_carry_opcode_then_segments_and_running_sequences():
    requests = rows((0, 1, 100, 1200, True), (10, 2, 7, 512, False), (20, 1, 200, 600, False))
    packets = from_requests(requests, CONFIG, compression=1.0, segment=512).packets
    words = packets["request"]
    assert (words >> np.uint64(36) & np.uint64(15)).tolist() == [2, 0, 0, 1, 1, 0]
    assert (words >> np.uint64(40)).tolist() == [0, 1, 2, 0, 3, 4]
    assert (words & np.uint64((1 << 36) - 1)).tolist() == [100, 101, 102, 7, 200, 201]
    assert packets["length"].tolist() == [512, 512, 176, 512, 512, 88]
    assert packets["tenant"].tolist() == [1, 1, 1, 2, 1, 1]
    assert packets["arrival"].tolist() == [0, 0, 0, 1, 2, 2]


@pytest.mark.parametrize("load", [0.5, 0.7, 0.85])
def test_load_is_what_was_asked_for(load):
    workload = from_requests(poisson(seed=5, count=4000, size=[512, 4096]), CONFIG, load=load)
    beats = int(((workload.packets["length"].astype(int) + 7) // 8).sum())
    assert beats / workload.last_arrival == pytest.approx(load, rel=0.01)
    assert workload.meta["compression"] > 0
    assert workload.bytes_offered == poisson(seed=5, count=4000, size=[512, 4096]).bytes


def test_streams_without_a_tenant_are_refused():
    with pytest.raises(InputError, match="stream 99 would be tenant 99, but the device has 16"):
        from_requests(rows((0, 99, 0, 512, True)), CONFIG, compression=1.0)
    with pytest.raises(InputError, match="stream 99 has no tenant"):
        from_requests(rows((0, 99, 0, 512, True)), CONFIG, compression=1.0, tenants={1: 1})
    assert set(from_requests(rows((0, 99, 0, 512, True)), CONFIG, compression=1.0,
                             tenants={99: 3}).packets["tenant"]) == {3}


def test_merged_workloads_keep_every_byte_and_number_tenants_anew():
    one = from_requests(poisson(seed=1, stream=3, count=50), CONFIG, load=0.3)
    two = from_requests(poisson(seed=2, stream=3, count=60), CONFIG, load=0.3)
    both = merge("both", [one, two])
    assert both.bytes_offered == one.bytes_offered + two.bytes_offered
    assert np.all(np.diff(both.packets["arrival"].astype(np.int64)) >= 0)
    assert (both.packets["request"] >> np.uint64(40)).tolist() == list(range(len(both.packets)))
    assert np.bincount(both.packets["request_index"]).tolist() == both.requests["packets"].tolist()


@pytest.mark.parametrize("seed", [1, 7])
def test_generators_repeat_with_their_seed_and_differ_without(seed):
    for generator in (poisson, on_off):
        assert np.array_equal(generator(seed=seed).rows, generator(seed=seed).rows)
        assert generator(seed=seed).sha256 == generator(seed=seed).sha256
        assert not np.array_equal(generator(seed=seed).rows, generator(seed=seed + 1).rows)
        assert generator(seed=seed).sha256 != generator(seed=seed + 1).sha256


def test_bursty_generator_is_burstier_at_the_same_rate():
    calm, bursty = poisson(seed=3, count=20_000), on_off(seed=3, count=20_000)
    assert bursty.span == pytest.approx(calm.span, rel=0.1)
    def spread(made):
        gaps = np.diff(made.rows["time"])
        return gaps.std() / gaps.mean()
    assert spread(calm) == pytest.approx(1, rel=0.1)
    assert spread(bursty) > 2


def test_bursty_streams_do_not_begin_together():
    bursts = [on_off(seed=3, stream=stream, count=10, burst=100, on_share=0.2).rows["time"][0] for stream in range(400)]
    at_once = np.mean(np.array(bursts) < 0.01 * 1e9 * 100 / 10_000)
    assert at_once == pytest.approx(0.2, abs=0.06), "a part of the streams as large as on_share is within a burst"


def test_interleaved_inputs_keep_their_streams_and_order():
    parts = [poisson(seed=1, stream=stream, count=50 + stream) for stream in (4, 9)]
    both = interleave(parts, "both")
    assert both.streams == [4, 9]
    assert np.all(np.diff(both.rows["time"]) >= 0)
    for part in parts:
        assert np.array_equal(both.rows[both.rows["stream"] == part.streams[0]], part.rows)
    assert both.sha256 != interleave(parts[::-1], "both").sha256


def test_sequential_share_makes_runs():
    made = on_off(seed=3, count=5000, size=[512, 4096], sequential_share=0.8).rows
    follows = made["lba"][1:] == made["lba"][:-1] + made["size"][:-1].astype(np.uint64) // np.uint64(512)
    assert follows.mean() == pytest.approx(0.8, abs=0.03)


def test_offering_loads_the_engines_as_asked_over_the_span():
    made = on_off(seed=4, count=5_000, size=[512, 4096])
    workload = offering(made, CONFIG, load=0.4, span=400_000, tenants=[3], flow_class=FlowClass.REQUEST_BATCH)
    offered = workload.bytes_offered / CONFIG.beat_bytes / workload.last_arrival / CONFIG.engine_beats
    assert offered == pytest.approx(0.4, rel=0.05)
    assert workload.last_arrival == pytest.approx(400_000, rel=0.05)
    assert set(workload.packets["tenant"].tolist()) == {3}


def test_workload_file_gives_everything_back(tmp_path):
    frames = read_pcap(capture(tmp_path, [ipv4(1, 2), ipv4(3, 1)]))
    made = from_frames(frames, CONFIG, port=2, destination=0, tenants=[1, 2], compression=2.0)
    again = Workload.load(made.save(tmp_path / "w.npz"))
    assert np.array_equal(made.packets, again.packets)
    assert np.array_equal(made.requests, again.requests)
    assert (made.name, made.sha256, made.payload, made.meta) == (again.name, again.sha256, again.payload, again.meta)


def test_files_that_are_no_workload_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such workload"):
        Workload.load(tmp_path / "none.npz")
    with pytest.raises(InputError, match="no workload file"):
        Workload.load(write(tmp_path, "x.npz", "text"))


def test_latency_of_a_request_ends_with_its_last_packet():
    from sim.board import COMPLETION

    workload = from_requests(rows((0, 1, 0, 1024, True), (100, 1, 0, 512, True)), CONFIG, compression=1.0, segment=512)
    done = np.zeros(2, COMPLETION)
    done["index"], done["done"] = [10, 12], [50, 77]
    assert workload.completed(done, first=10).tolist() == [-1, 67]
    done = np.zeros(3, COMPLETION)
    done["index"], done["done"] = [11, 10, 12], [90, 50, 77]
    assert workload.completed(done, first=10).tolist() == [90, 67]


def test_excerpts_and_scaling_are_noted():
    made = poisson(seed=1, count=100).excerpt(first=10, count=20).scale_sizes(0.5)
    assert len(made.rows) == 20
    assert made.rows["size"].tolist() == [2048] * 20
    assert made.notes["payload_scale"] == 0.5
    assert made.notes["excerpt"] == {"first": 10, "count": 20}


@pytest.mark.skipif(not (DATA / "mqsim_tpcc-small.trace").exists(), reason="no recorded traces: MORPHNIC_DATA")
def test_recorded_traces_have_the_documented_shape():
    tpcc = read_trace(DATA / "mqsim_tpcc-small.trace")
    assert (len(tpcc.rows), len(tpcc.streams)) == (pytest.approx(7000, abs=100), 16)
    assert tpcc.rows["size"].max() == pytest.approx(61_000, abs=1000)
    workload = from_requests(tpcc, CONFIG, load=0.7)
    assert workload.bytes_offered == tpcc.bytes
    capture_file = read_pcap(DATA / "pcapplusplus_example.pcap")
    assert len(capture_file.rows) == 4631
    assert capture_file.notes["conversations"] == 27  # 53 pairs of (source, destination)
