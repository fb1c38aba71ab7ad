"""The engine column of a device, Verilated: host port, crosspoint, scheduled engine output, engine array.

The gateware is that of the device, with a shard that takes as long as each request says: service times are then free
of packet sizes, and unknown to everything that schedules. `EngineColumn` runs it in a C++ harness that posts arrivals.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _figures import progress
from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gateware.config import DeviceConfig
from gateware.engine.array import EngineArray
from gateware.engine.shard import ShardId, ShardSignature
from gateware.fabric.fabric import Fabric
from gateware.manager.allocation import FULL_RATE
from sim.build import Harness, build, to_verilog

REQUEST_BYTES = 64
NEVER = np.iinfo(np.uint64).max
QUEUED = 16  # requests of a tenant that the host keeps in the fabric


class TimedShard(wiring.Component):
    """A shard whose request takes as many cycles as its first two bytes say, and at least its beats."""

    def __init__(self, config: DeviceConfig):
        super().__init__({"slot": In(ShardSignature(config))})

    def elaborate(self, platform):
        m = Module()
        header, beats, answers = self.slot.request.header, self.slot.request.data, self.slot.answers
        elapsed, wanted, known = Signal(16), Signal(16), Signal()
        done = Signal()
        time = Mux(known, wanted, beats.payload.data[:16])
        m.d.comb += [
            self.slot.kind.eq(ShardId.CRC32C),
            done.eq(beats.valid & beats.payload.last & (elapsed + 1 >= time) & (~answers.valid | answers.ready)),
            header.ready.eq(done),
            beats.ready.eq(header.valid & (~beats.payload.last | done)),
        ]
        with m.If(header.valid):
            m.d.sync += [elapsed.eq(elapsed + 1), known.eq(known | beats.valid)]
            with m.If(beats.valid & ~known):
                m.d.sync += wanted.eq(beats.payload.data[:16])
        with m.If(answers.ready):
            m.d.sync += answers.valid.eq(0)
        with m.If(done & header.valid):
            m.d.sync += [
                elapsed.eq(0), known.eq(0), answers.valid.eq(1),
                answers.payload.tenant.eq(header.payload.packet.tenant),
                answers.payload.tag.eq(header.payload.tag),
            ]
        return m


class ColumnTop(wiring.Component):
    """Fabric and engine array of a device with two ports, behind pins that a harness can set without bit fields."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        tenant, word = range(config.tenants), config.data_width
        super().__init__({
            "row_write": In(1), "row_tenant": In(tenant), "row_weight": In(16), "row_pages": In(16),
            "row_slots": In(16), "active": In(1), "sum_pages": In(16),
            "post_valid": In(1), "post_tenant": In(tenant), "post_ready": Out(1),
            "beat_valid": In(1), "beat_data": In(word), "beat_last": In(1), "beat_ready": Out(1),
            "left": Out(1), "left_tenant": Out(tenant), "left_dropped": Out(1),
            "answered": Out(1), "answered_tenant": Out(tenant),
            "busy": Out(config.slots), "busy_tenants": Out(8 * config.slots),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.fabric = fabric = Fabric(config)
        m.submodules.engines = engines = EngineArray(config, TimedShard)
        wiring.connect(m, fabric.outputs[config.engine_port], engines.requests)
        wiring.connect(m, engines.responses, fabric.inputs[config.engine_port])
        wiring.connect(m, engines.feedback, fabric.engine)
        cycle = Signal(64)
        m.d.sync += cycle.eq(cycle + 1)
        for part in (fabric, engines):
            bus = part.allocation
            m.d.comb += [
                bus.write.eq(self.row_write), bus.bank.eq(1), bus.tenant.eq(self.row_tenant),
                bus.active_bank.eq(self.active), bus.epoch.eq(self.active), bus.sum_pages.eq(self.sum_pages),
                bus.row.weight.eq(self.row_weight), bus.row.pages.eq(self.row_pages),
                bus.row.slots.eq(self.row_slots), bus.row.rate.eq(FULL_RATE), bus.row.burst.eq(512),
                bus.row.ports.eq((1 << config.ports) - 1),
            ]
        host, sink = fabric.inputs[config.host_port], fabric.outputs[config.host_port]
        leaves = fabric.egress[config.engine_port]
        m.d.comb += [
            fabric.cycle.eq(cycle),
            host.header.valid.eq(self.post_valid),
            host.header.payload.tenant.eq(self.post_tenant),
            host.header.payload.destination.eq(config.engine_port),
            host.header.payload.length.eq(REQUEST_BYTES),
            self.post_ready.eq(host.header.ready),
            host.data.valid.eq(self.beat_valid),
            host.data.payload.data.eq(self.beat_data),
            host.data.payload.last.eq(self.beat_last),
            self.beat_ready.eq(host.data.ready),
            sink.header.ready.eq(1),
            sink.data.ready.eq(1),
            self.answered.eq(sink.header.valid),
            self.answered_tenant.eq(sink.header.payload.tenant),
            self.left.eq(leaves.leave),
            self.left_tenant.eq(leaves.header.tenant),
            self.left_dropped.eq(leaves.cut | fabric.ingress[config.host_port].drop),
            self.busy.eq(Cat(slot.busy for slot in engines.busy)),
            self.busy_tenants.eq(Cat(Cat(slot.tenant, C(0, 2)) for slot in engines.busy)),
        ]
        return m


@dataclass(frozen=True)
class Arrivals:
    """Requests of one tenant: cycle of arrival (rising) and service time of each."""

    cycles: np.ndarray
    costs: np.ndarray


@dataclass(frozen=True)
class Service:
    """What happened: `busy[bin, tenant]` cycles of engine time, and `waiting[bin, tenant]`, the fewest requests of the
    tenant that had arrived and were not at work at any time in the bin. `ends[tenant]`: when each of its requests was
    answered, for those that were."""

    bin: int
    busy: np.ndarray
    waiting: np.ndarray
    ends: list[np.ndarray]


class EngineColumn:
    """One built column; `run` starts from reset each time."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        harness = Harness("engine_column", (Path(__file__).parent / "_engine_column.cpp",),
                          generate=lambda ports: {"column_pins.h": "".join(
                              f"#define PIN_{port.name} {port.member}\n" for port in ports)}, version="1")
        model = build(to_verilog(ColumnTop(config)), harness, what="the engine column", progress=progress)
        self._library = ctypes.CDLL(str(model.library))
        self._library.column_run.restype = ctypes.c_int64

    def run(self, arrivals: Sequence[Arrivals], weights: Sequence[int], slots: Sequence[int], cycles: int,
            bin_cycles: int) -> Service:
        """Serve `arrivals` (one entry a tenant) for `cycles`. slots: the mask that each tenant owns."""
        tenants = self._config.tenants
        counts = np.array([len(one.cycles) for one in arrivals] + [0] * (tenants - len(arrivals)), np.uint64)
        when = np.ascontiguousarray(np.concatenate([one.cycles for one in arrivals]), np.uint64)
        costs = np.ascontiguousarray(np.concatenate([one.costs for one in arrivals]), np.uint16)
        rows = np.zeros((tenants, 3), np.uint32)
        rows[:len(weights), 0], rows[:len(slots), 1] = weights, slots
        rows[:, 2] = self._config.pages // tenants
        bins = cycles // bin_cycles
        busy, waiting = np.zeros((bins, tenants), np.uint32), np.zeros((bins, tenants), np.uint32)

        ends = np.full(len(when), NEVER, np.uint64)

        def pointer(array: np.ndarray) -> ctypes.c_void_p:
            return ctypes.c_void_p(array.ctypes.data)

        lost = self._library.column_run(
            ctypes.c_int(tenants), ctypes.c_int(self._config.slots), ctypes.c_int(REQUEST_BYTES // 8),
            ctypes.c_int(QUEUED), pointer(rows), pointer(counts), pointer(when), pointer(costs),
            ctypes.c_uint64(bins), ctypes.c_uint64(bin_cycles), pointer(busy), pointer(waiting), pointer(ends))
        if lost:
            raise RuntimeError(f"the fabric dropped or cut off {lost} requests")
        mine = np.split(ends, np.cumsum([len(one.cycles) for one in arrivals])[:-1])
        return Service(bin_cycles, busy[:, :len(arrivals)], waiting[:, :len(arrivals)],
                       [one[one != NEVER].astype(np.int64) for one in mine])
