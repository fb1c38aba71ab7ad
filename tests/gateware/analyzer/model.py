"""Golden model of the workload analyzer: the same events, one cycle at a time, counted the obvious way."""

from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction

WORDS = ("bytes_in", "packets_in", "requests", "sequential", "bytes_out", "packets_out", "drops", "peak",
         "backpressure_cycles", "engine_cycles", "latency_sum_low", "latency_max", "slo_misses", "queue",
         "predicted_bytes", "flags")
DETAIL = ("strided", "burstiness", "depth_mean", "latency_mean")
FULL = 0xFFFFFFFF
FULL_RATE = 1 << 16


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
    """Events of one cycle; `busy` has a tenant or None for each slot, `credit` a bit for each tenant."""

    ingress: list[Ingress]
    egress: list[Egress]
    busy: list[int | None]
    credit: int = (1 << 64) - 1


def latency_bin(latency):
    """Bin of the histogram, by its definition in the register map."""
    if latency < 8:
        return latency
    octave = latency.bit_length() - 1
    return 8 * (octave - 2) + (latency >> octave - 3 & 7)


class Streams:
    """The last twelve requests of a tenant, newest first: [sector, stride, whether nothing has continued it]."""

    def __init__(self):
        self._last = []

    def classify(self, sector):
        """"sequential", "strided" or "random"."""
        kind, stride = self._continue(sector)
        self._last = [[sector, stride, True], *self._last][:12]
        return kind

    def _continue(self, sector):
        near = 0
        distances = [(place, self._distance(sector, place[0])) for place in self._last if place[2]]
        for place, distance in distances:
            if 1 <= distance <= 256:
                place[2] = False
                return "sequential", 0
        for place, distance in distances:
            if distance == place[1] != 0:
                place[2] = False
                return "strided", distance
        for _, distance in distances:
            if -16384 <= distance < 0 or 256 < distance < 16384:
                near = distance
                break
        return "random", near

    @staticmethod
    def _distance(sector, last):
        """Modulo 2**26, between -2**25 and 2**25."""
        return (sector - last + (1 << 25)) % (1 << 26) - (1 << 25)


class Holt:
    """Level and slope in 1/256 byte, with the gains 2**-a and 2**-b; `recent` is the error that it made lately."""

    def __init__(self, a, b):
        self._a, self._b, self._seen = a, b, 0
        self.level = self.slope = self.recent = 0

    def update(self, value):
        full = (1 << 40) - 1
        forecast = self.level + self.slope
        error = (value << 8) - forecast
        if self._seen == 0:
            self.level = value << 8
        else:
            self.level = min(max(forecast + (error >> self._a), 0), full)
            self.slope = min(max(self.slope + (error >> self._a + self._b), -full - 1), full)
            step = abs(error) - self.recent
            self.recent = min(abs(error) if self._seen == 1 else self.recent + (step >> 5), full)
        self._seen += 1

    def ahead(self):
        return min(max((self.level + self.slope) >> 8, 0), FULL)


class Forecast:
    """Of four pairs of gains the one that erred least lately."""

    def __init__(self):
        self.pairs = [Holt(1, 1), Holt(1, 4), Holt(3, 4), Holt(5, 5)]

    def predict(self, value):
        for pair in self.pairs:
            pair.update(value)
        return min(self.pairs, key=lambda pair: pair.recent).ahead()


@dataclass
class Window:
    """One complete window."""

    number: int
    start: int
    cycles: int
    rows: list[dict[str, int]] = field(default_factory=list)


class Model:
    """Feed it `step` for every cycle; `windows` fills up. `details` has, for each, a row of `DETAIL` a tenant."""

    def __init__(self, config, length, slo, host, eligible):
        self.windows, self.details = [], []
        self.histogram = defaultdict(int)
        self.setting = length
        self.eligible = eligible                     # slots that each tenant may use
        self.rate = [FULL_RATE] * config.tenants
        self._config, self._slo, self._host = config, slo, host
        self._streams = defaultdict(Streams)
        self._trends = [Forecast() for _ in range(config.tenants)]
        self._depth = [0] * config.tenants
        self._uncredited, self._starved = -1, 0      # in this span of 16 cycles so far, in all of the one before
        self._cycle = 0
        self._begin(length)

    def _begin(self, length):
        tenants, ports = range(self._config.tenants), range(self._config.ports)
        self._start, self._length = self._cycle, length
        self._sums = [defaultdict(int) for _ in tenants]
        self._arrived = [[(0, 0)] * 16 for _ in tenants]             # (bytes, packets) by part
        self._sent = [[[0] * 16 for _ in ports] for _ in tenants]    # whole beats by port and part
        self._filled = [[0] * 16 for _ in ports]                     # beats out by part
        self._taken = [[0] * 16 for _ in ports]                      # beats in by part
        self._came = [[set() for _ in range(16)] for _ in ports]     # tenants by part
        self._busy = [0] * self._config.slots
        self._samples = [[] for _ in tenants]                        # (depth, held)
        self._peak = list(self._depth)

    def step(self, cycle):
        offset, tenants = self._cycle - self._start, self._config.tenants
        part = min(offset // (self._length // 16), 15)
        self._uncredited &= ~cycle.credit
        if self._cycle % 16 == 15:
            self._starved, self._uncredited = self._uncredited, -1
        for port, event in enumerate(cycle.ingress):
            self._ingress(port, event, part)
        for port, event in enumerate(cycle.egress):
            if event.leave:
                self._leave(port, part, *event.leave)
        for slot, tenant in enumerate(cycle.busy):
            if tenant is not None:
                self._sums[tenant]["engine_cycles"] += 1
                self._busy[slot] += 1
        self._peak = [max(pair) for pair in zip(self._peak, self._depth, strict=True)]
        sampled = offset % tenants
        self._samples[sampled].append((self._depth[sampled], self._starved >> sampled & 1))
        self._cycle += 1
        if self._cycle == self._start + self._length:
            self.details.append([self._detail(tenant) for tenant in range(tenants)])
            rows = [self._row(tenant) for tenant in range(tenants)]
            self.windows.append(Window(len(self.windows) + 1, self._start, self._length, rows))
            self._begin(self.setting)

    def _ingress(self, port, event, part):
        if event.admit:
            tenant, length = event.admit
            self._sums[tenant]["bytes_in"] += length
            self._sums[tenant]["packets_in"] += 1
            size, count = self._arrived[tenant][part]
            self._arrived[tenant][part] = size + length, count + 1
            self._depth[tenant] += 1
            self._taken[port][part] += -(-length // self._config.beat_bytes)
            self._came[port][part].add(tenant)
        if event.drop is not None and event.drop < self._config.tenants:
            self._sums[event.drop]["drops"] += 1
        if event.stalled is not None:
            self._sums[event.stalled]["backpressure_cycles"] += 1
        if event.request and event.request[1] != 0 and port != self._config.engine_port:
            tenant, _, sector = event.request
            self._sums[tenant]["requests"] += 1
            self._sums[tenant][self._streams[tenant].classify(sector)] += 1

    def _leave(self, port, part, tenant, length, latency, cut):
        beats = -(-length // self._config.beat_bytes)
        self._filled[port][part] += beats
        self._depth[tenant] -= 1
        if cut:
            return
        sums = self._sums[tenant]
        self._sent[tenant][port][part] += beats
        sums["bytes_out"] += length
        sums["packets_out"] += 1
        sums["latency_sum"] = min(sums["latency_sum"] + latency, (1 << 40) - 1)
        sums["latency_max"] = max(sums["latency_max"], latency)
        sums["slo_misses"] += self._slo[tenant] != 0 and latency > self._slo[tenant]
        self.histogram[tenant, latency_bin(latency)] += 1

    def _detail(self, tenant):
        sums = self._sums[tenant]
        packets = [count for _, count in self._arrived[tenant]]
        mean = sum(packets) / 16
        variance = sum((count - mean) ** 2 for count in packets) / 16
        depths = [depth for depth, _ in self._samples[tenant]]
        return {
            "strided": sums["strided"],
            "burstiness": int(Fraction(variance) / Fraction(mean) * 16) if mean else 0,
            "depth_mean": 256 * sum(depths) // len(depths),
            "latency_mean": sums["latency_sum"] // sums["packets_out"] if sums["packets_out"] else 0,
        }

    def _row(self, tenant):
        sums = self._sums[tenant]
        row = {name: sums[name] for name in WORDS}
        burst = max(size for size, _ in self._arrived[tenant])
        row["peak"] = self._peak[tenant] | min(self._detail(tenant)["burstiness"], 0xFFFF) << 16
        row["latency_sum_low"] = sums["latency_sum"] & FULL
        row["queue"] = self._depth[tenant] | min(burst // 64, 0xFFFF) << 16
        row["predicted_bytes"] = self._trends[tenant].predict(sums["bytes_in"])
        cpu, memory = self._host[tenant]
        flags = sum(flag << bit for bit, flag in enumerate(self._flags(tenant)))
        row["flags"] = flags | cpu << 8 | memory << 16 | sums["latency_sum"] >> 32 << 24
        return row

    def _flags(self, tenant):
        sums, length = self._sums[tenant], self._length
        samples = self._samples[tenant]
        on_their_way = max(Fraction(sum(depth for depth, _ in samples), len(samples)),
                           Fraction(sums["latency_sum"], length))
        starved = sum(held for _, held in samples) > len(samples) / 8
        stalled = sums["backpressure_cycles"] > length / 8 or (starved and on_their_way >= 1)
        offered = sums["packets_in"] + sums["drops"]
        waits = stalled or (sums["packets_in"] > 0 and sums["drops"] > offered / 8)
        backlogged = waits or on_their_way >= 2
        engine = self._engine_bound(tenant)
        bandwidth = self._bandwidth_bound(tenant, backlogged)
        return [
            stalled,
            sums["sequential"] > sums["requests"] / 2,
            sums["slo_misses"] > sums["packets_out"] / 16,
            engine,
            bandwidth,
            waits and not engine and not bandwidth,
            max(self._host[tenant]) > 0.8 * 255,
            sums["strided"] > sums["requests"] / 2,
        ]

    def _engine_bound(self, tenant):
        slots = [slot for slot in range(self._config.slots) if self.eligible[tenant] >> slot & 1]
        time = len(slots) * self._length
        return (sum(self._busy[slot] for slot in slots) > time * 7 / 8
                and self._sums[tenant]["engine_cycles"] > time / 16)

    def _bandwidth_bound(self, tenant, backlogged):
        ports, parts = range(self._config.ports), range(16)
        lengths = [self._length // 16] * 15 + [self._length - self._length // 16 * 15]
        busiest = sum(max(self._sent[tenant][port][part] for port in ports) for part in parts)
        if self.rate[tenant] < FULL_RATE and busiest > Fraction(7 * self.rate[tenant] * self._length, 8 * FULL_RATE):
            return True
        contended = sum(any((self._sent[tenant][port][part] and self._filled[port][part] > lengths[part] * 7 / 8)
                            or (tenant in self._came[port][part] and self._taken[port][part] > lengths[part] * 7 / 8)
                            for port in ports) for part in parts)
        return backlogged and contended >= 8
