"""What left the device unprocessed is processed by the real software shard, and its answers are checked."""

import google_crc32c
import numpy as np
import pytest

from morphnic.demo.twin import process_on_host
from sim.board import PACKET
from sim.workloads import Workload

BODIES = [b"one", b"twenty-two bytes of it", bytes(range(256)) * 8]


class Recorded:
    """A device whose board recorded three packets at the twin, the last of them first; `crc` may be wrong."""

    def __init__(self, crc):
        self.transport = self
        self._crc = crc

    def control(self, document):
        order = [2, 0, 1]
        rows = np.zeros(3, [("index", "<u4"), ("crc", "<u4")])
        rows["index"], rows["crc"] = order, [self._crc[index] for index in order]
        with open(document["path"], "wb") as file:
            np.save(file, rows)
        with open(document["payloads"], "wb") as file:
            file.writelines(BODIES[index] for index in order)


def workload():
    packets = np.zeros(3, PACKET)
    packets["length"] = [len(body) for body in BODIES]
    return Workload("three", "0" * 64, packets, np.zeros(0), b"", {})


@pytest.mark.parametrize("wrong", [0, 1, 3])
def test_each_answer_is_compared_with_what_the_scoreboard_computed(tmp_path, wrong):
    crc = [google_crc32c.value(body) ^ (index < wrong) for index, body in enumerate(BODIES)]
    done = process_on_host(Recorded(crc), workload(), tmp_path)
    assert (done.requests, done.bytes, done.wrong) == (3, sum(map(len, BODIES)), wrong)
    assert done.bytes_per_second > 0


def test_payloads_that_do_not_fit_their_packets_are_refused(tmp_path):
    made = workload()
    made.packets["length"][1] += 1
    with pytest.raises(ValueError, match="payloads must have"):
        process_on_host(Recorded([0, 0, 0]), made, tmp_path)
