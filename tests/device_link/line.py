"""A model of a serial line with a device at its end, in virtual time, with seeded faults.

`LineModel` is a `ByteChannel`; its device is a `Responder` over `RegisterModel`. Nothing sleeps: reading with
nothing on the way moves the clock to the next arrival or to the time-out.
"""

import heapq
import random

from device_link.framing import FrameDecoder, encode_frame
from device_link.operations import BUFFER_BYTES, BUFFER_MESSAGES, SPACE_BYTES
from device_link.pipe import ByteChannel, FramedPipe
from device_link.responder import BusFault, BusResponder


class RegisterModel:
    """All of the space answers except `hole`; counts how often each address was written."""

    def __init__(self, hole=range(0x3_0000, SPACE_BYTES)):
        self.words = {}
        self.hole = hole
        self.log = []

    def read(self, address):
        if address in self.hole:
            raise BusFault(address)
        return self.words.get(address, 0)

    def write(self, address, word):
        if address in self.hole:
            raise BusFault(address)
        self.words[address] = word
        self.log.append((address, word))


class Faults:
    """Corrupts, loses, duplicates and inserts bytes with probability `rate` each, until `quiet` is set."""

    def __init__(self, seed, rate):
        self._rng = random.Random(seed)
        self.rate = rate
        self.count = 0

    def apply(self, data):
        if not self.rate:
            return data
        out = bytearray()
        for byte in data:
            if self._rng.random() >= self.rate:
                out.append(byte)
                continue
            self.count += 1
            kind = self._rng.choice(["corrupt", "lose", "duplicate", "insert", "zero"])
            if kind == "corrupt":
                out.append(byte ^ 1 << self._rng.randrange(8))
            elif kind == "duplicate":
                out += bytes([byte, byte])
            elif kind == "insert":
                out += bytes([self._rng.randrange(256), byte])
            elif kind == "zero":
                out.append(0)
        return bytes(out)


class LineModel(ByteChannel):
    """Both directions at `baud`; the device answers a frame that has arrived once it has answered those before it.

    turnaround: seconds from the first byte's arrival until the host sees what came. skew: how much slower than `baud`
    the device sends.
    `overflows` counts the messages that found the device's buffer full, and were lost.
    """

    def __init__(self, *, seed=0, rate=0.0, baud=1_000_000, hole=None, turnaround=0.0, skew=0.0):
        self.registers = RegisterModel() if hole is None else RegisterModel(hole)
        self.responder = BusResponder(self.registers, boot_nonce=0x1234_5678)
        self.to_device, self.to_host = Faults(seed, rate), Faults(seed + 1, rate)
        self.time = 0.0
        self.connected = True
        self.device_alive = True
        self.requests_seen = []
        self.overflows = 0
        self._byte = 10 / baud
        self._turnaround, self._slow_byte = turnaround, (1 + skew) * 10 / baud
        self._buffered = []  # (when it is answered, bytes)
        self._decoder = FrameDecoder(limit=1024)
        self._uplink_free = self._downlink_free = 0.0
        self._arrivals = []
        self._order = 0

    @property
    def bytes_per_second(self):
        return 1 / self._byte

    def write(self, data):
        self._uplink_free = max(self.time, self._uplink_free)
        for frame in data.split(b"\0"):
            self._uplink_free += (len(frame) + 1) * self._byte
            if self.connected and self.device_alive:
                self._arrive(frame + b"\0")
        self._uplink_free -= self._byte  # the last piece has no end

    def _arrive(self, frame):
        for message in self._decoder.feed(self.to_device.apply(frame)):
            if message is None:
                self._answer(self.responder.corrupt())
                continue
            self._buffered = [(end, size) for end, size in self._buffered if end > self._uplink_free]
            if (sum(size for _, size in self._buffered) + len(message) > BUFFER_BYTES
                    or len(self._buffered) == BUFFER_MESSAGES):
                self.overflows += 1
                continue
            self.requests_seen.append(message)
            self._answer(self.responder.handle(message))
            self._buffered.append((self._downlink_free, len(message)))

    def push(self, message):
        """Send `message` from the device by itself."""
        self._answer(message)

    def _answer(self, message):
        frame = self.to_host.apply(encode_frame(message))
        start = max(self._uplink_free, self._downlink_free)
        self._downlink_free = start + len(frame) * self._slow_byte
        if self.connected:
            self._order += 1
            heapq.heappush(self._arrivals, (self._downlink_free, self._order, frame))

    def read(self, timeout):
        until = self.time + timeout
        if not self._arrivals or self._arrivals[0][0] + self._turnaround > until:
            self.time = max(self.time, until) + 1e-9
            return b""
        self.time = max(self.time, self._arrivals[0][0] + self._turnaround)
        data = b""
        while self._arrivals and self._arrivals[0][0] <= self.time:
            data += heapq.heappop(self._arrivals)[2]
        return data

    def greet(self):
        """No break, and no rate to disagree about."""

    def close(self):
        self.connected = False


class ModelPipe(FramedPipe):
    """A framed pipe over a `LineModel`, on its virtual clock."""

    def __init__(self, line):
        super().__init__(line)
        self._line = line

    def now(self):
        return self._line.time
