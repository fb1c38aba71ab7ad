"""What the parts of the host queues share: layouts of descriptors and jobs, and the memories they lie in."""

from amaranth import *
from amaranth.lib import data, enum, stream
from amaranth.lib.memory import Memory
from amaranth.utils import ceil_log2

from .dma import Command
from .queue_steps import WINDOW

__all__ = ["LENGTH", "Descriptor", "Job", "JobKind", "Jobs", "Result", "Status", "Store", "hold_next", "row"]

#: Bits of the length of a packet in bytes.
LENGTH = 13


class Status(enum.Enum, shape=unsigned(4)):
    """How a descriptor ended, if not with the `Outcome` of its DMA."""

    DONE = 0
    LENGTH = 14
    NO_ROOM = 15


class Descriptor(data.Struct):
    """As it is posted."""

    address: 64
    length: 16
    destination: 4
    flow_class: 4
    unused: 8
    flow_hash: 16
    free: 16


class Result(data.Struct):
    """What became of a descriptor: its status, and the bytes that were moved."""

    status: 4
    length: LENGTH


class JobKind(enum.Enum, shape=unsigned(2)):
    """Descriptors of a ring; the payload of one; of one that needs no DMA, since its status is known."""

    DESCRIPTORS = 0
    PAYLOAD = 1
    NOTHING = 2


class Job(data.Struct):
    """A DMA command, as who waits for its end has to know it: `count` descriptors from `place` of the window on."""

    kind: JobKind
    receiving: 1
    tenant: 6
    place: range(WINDOW)
    count: 5
    result: Result


#: A stream of jobs with their commands.
Jobs = stream.Signature(data.StructLayout({"job": Job, "command": Command}))


def hold_next(m, jobs, ask, reserved, goes):
    """What is offered to a DMA engine: a job of `jobs`, for which its place may be `reserved`, or else of `ask`.

    Returns its register and whether something is in it; `goes`: it is taken, or nobody has to.
    """
    held, valid = Signal(Jobs.members["payload"].shape), Signal()
    m.d.comb += [jobs.ready.eq(~valid | goes), ask.ready.eq((~valid | goes) & ~jobs.valid & ~reserved)]
    with m.If(~valid | goes):
        m.d.sync += [valid.eq(jobs.valid | (ask.valid & ask.ready)),
                     held.eq(Mux(jobs.valid, jobs.payload, ask.payload))]
    return held, valid


class Store:
    """Descriptors and results of the rings of one direction: rows of `WINDOW` for each tenant.

    Writers share the write ports here; a reader has a port of its own, which looks up a row in a cycle.
    """

    def __init__(self, m, config, name):
        depth = WINDOW << ceil_log2(config.tenants)
        m.submodules[f"{name}_descriptors"] = self._descriptors = Memory(shape=Descriptor, depth=depth, init=[])
        m.submodules[f"{name}_results"] = self._results = Memory(shape=Result, depth=depth, init=[])
        self.descriptor, self.result = self._descriptors.write_port(), self._results.write_port()

    def look_up_descriptor(self):
        """A port."""
        return self._descriptors.read_port()

    def look_up_result(self):
        """A port."""
        return self._results.read_port()


def row(tenant, place):
    """Row of a `Store`."""
    return Cat(place[:(WINDOW - 1).bit_length()], tenant)
