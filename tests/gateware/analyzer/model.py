"""Golden model of the workload analyzer: the same events, one cycle at a time, counted the obvious way."""

from collections import defaultdict
from dataclasses import dataclass, field

WORDS = ("bytes_in", "packets_in", "requests", "sequential", "bytes_out", "packets_out", "drops", "queue_depth_max",
         "backpressure_cycles", "engine_cycles", "latency_sum", "latency_max", "slo_misses", "queue",
         "predicted_bytes", "flags")
FULL = 0xFFFFFFFF


@dataclass
class Ingress:
    """What one input shows in one cycle: (tenant, bytes) or None, a tenant, (tenant, opcode, sector), a tenant."""

    admit: tuple[int, int] | None = None
    drop: int | None = None
    request: tuple[int, int, int] | None = None
    stalled: int | None = None


@dataclass
class Egress:
    """What one output shows in one cycle: (tenant, bytes, latency, cut) or None."""

    leave: tuple[int, int, int, bool] | None = None


@dataclass
class Cycle:
    """Events of one cycle; `busy` has a tenant or None for each slot."""

    ingress: list[Ingress]
    egress: list[Egress]
    busy: list[int | None]


def latency_bin(latency):
    """Bin of the histogram, by its definition in the register map."""
    if latency < 8:
        return latency
    octave = latency.bit_length() - 1
    return 8 * (octave - 2) + (latency >> octave - 3 & 7)


class Streams:
    """Sectors of up to four streams, most recent first."""

    def __init__(self):
        self._last = []

    def sequential(self, sector):
        for place, last in enumerate(self._last):
            if 1 <= sector - last <= 256:
                del self._last[place]
                self._last.insert(0, sector)
                return True
        self._last = [sector, *self._last][:4]
        return False


class Holt:
    """Level and slope in 1/256 byte."""

    def __init__(self):
        self.level = self.slope = None

    def predict(self, value):
        if self.level is None:
            self.level, self.slope = value << 8, 0
        else:
            forecast = self.level + self.slope
            error = (value << 8) - forecast
            self.level = min(max(forecast + (error >> 1), 0), (1 << 40) - 1)
            self.slope = min(max(self.slope + (error >> 3), -(1 << 40)), (1 << 40) - 1)
        return min(max((self.level + self.slope) >> 8, 0), FULL)


@dataclass
class Window:
    """One complete window."""

    number: int
    start: int
    cycles: int
    rows: list[dict[str, int]] = field(default_factory=list)


class Model:
    """Feed it `step` for every cycle; `windows` fills up."""

    def __init__(self, config, length, slo, host, share):
        self.windows = []
        self.histogram = defaultdict(int)
        self.setting = length
        self._config, self._slo, self._host, self._share = config, slo, host, share
        self._streams = defaultdict(Streams)
        self._trends = [Holt() for _ in range(config.tenants)]
        self._depth = [0] * config.tenants
        self._cycle = 0
        self._begin(length)

    def _begin(self, length):
        self._start, self._length = self._cycle, length
        self._sums = [defaultdict(int) for _ in range(self._config.tenants)]
        self._parts = [[0] * 16 for _ in range(self._config.tenants)]
        self._peak = list(self._depth)

    def step(self, cycle):
        part = min((self._cycle - self._start) // (self._length // 16), 15)
        for port, event in enumerate(cycle.ingress):
            self._ingress(port, event, part)
        for event in cycle.egress:
            if event.leave:
                self._leave(*event.leave)
        for tenant in cycle.busy:
            if tenant is not None:
                self._sums[tenant]["engine_cycles"] += 1
        self._peak = [max(pair) for pair in zip(self._peak, self._depth, strict=True)]
        self._cycle += 1
        if self._cycle == self._start + self._length:
            rows = [self._row(tenant) for tenant in range(self._config.tenants)]
            self.windows.append(Window(len(self.windows) + 1, self._start, self._length, rows))
            self._begin(self.setting)

    def _ingress(self, port, event, part):
        if event.admit:
            tenant, length = event.admit
            self._sums[tenant]["bytes_in"] += length
            self._sums[tenant]["packets_in"] += 1
            self._parts[tenant][part] += length
            self._depth[tenant] += 1
        if event.drop is not None and event.drop < self._config.tenants:
            self._sums[event.drop]["drops"] += 1
        if event.stalled is not None:
            self._sums[event.stalled]["backpressure_cycles"] += 1
        if event.request and event.request[1] != 0 and port != self._config.engine_port:
            tenant, _, sector = event.request
            self._sums[tenant]["requests"] += 1
            self._sums[tenant]["sequential"] += self._streams[port, tenant].sequential(sector)

    def _leave(self, tenant, length, latency, cut):
        self._depth[tenant] -= 1
        if cut:
            return
        sums = self._sums[tenant]
        sums["bytes_out"] += length
        sums["packets_out"] += 1
        sums["latency_sum"] = min(sums["latency_sum"] + latency, FULL)
        sums["latency_max"] = max(sums["latency_max"], latency)
        sums["slo_misses"] += self._slo[tenant] != 0 and latency > self._slo[tenant]
        self.histogram[tenant, latency_bin(latency)] += 1

    def _row(self, tenant):
        sums = self._sums[tenant]
        row = {name: sums[name] for name in WORDS}
        row["queue_depth_max"] = self._peak[tenant]
        row["queue"] = self._depth[tenant] | min(max(self._parts[tenant]) // 64, 0xFFFF) << 16
        row["predicted_bytes"] = self._trends[tenant].predict(sums["bytes_in"])
        share = self._share[tenant]
        flags = [
            sums["backpressure_cycles"] * 8 > self._length,
            sums["sequential"] * 2 > sums["requests"],
            sums["slo_misses"] * 16 > sums["packets_out"],
            share > 0 and sums["engine_cycles"] * 2 > self._length * share,
        ]
        cpu, memory = self._host[tenant]
        row["flags"] = sum(flag << bit for bit, flag in enumerate(flags)) | cpu << 8 | memory << 16
        return row
