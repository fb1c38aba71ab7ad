"""When the next request may go out on a serial line: a device's buffer holds a few kilobytes, and a line has no brakes.

A list of addresses takes half as many bytes as its answer, so that requests sent without a pause arrive twice as fast
as they are answered. Waiting for answers instead would leave the line idle for the host's turnaround, which an FTDI
cable makes 16 ms. So the host keeps a model of the device's buffer: a request is there from its arrival until its
answer has left, both of which follow from sizes and the rate of the line. The model fills half of the buffer; the other
half is for what it learns late: that a pushed window stood between answers, and that a device's clock is slower than
the host's, so that answers lag more and more.
"""

from __future__ import annotations

from collections import deque

_CONFIDENT = 0.5  # share of the device's buffer that the model fills
#: Answers over which the smallest lag is taken. A host that reads now and then sees them in batches of up to all that
#: are in flight, and only the last of a batch in time: so many hold a whole batch.
_RECENT = 128


class Pacer:
    """A model of a device's buffer of `capacity` bytes and `messages` messages behind a line.

    All times are seconds on the line's clock.
    """

    def __init__(self, capacity: int, messages: int) -> None:
        self._capacity = int(_CONFIDENT * capacity)
        self._messages = int(_CONFIDENT * messages)
        self._uplink_free = self._downlink_free = 0.0
        self._held: deque[tuple[float, int]] = deque()  # (when its answer has left, bytes), in order
        self._expected: dict[int, float] = {}  # sequence -> when its answer should have left
        self._lags: deque[float] = deque(maxlen=_RECENT)
        self._usual: float | None = None  # smallest lag of the first answers

    def earliest(self, now: float, size: int, request_time: float) -> float:
        """When a request of `size` bytes may be sent that takes `request_time` on the wire."""
        arrival = max(now, self._uplink_free) + request_time
        held = [(end, length) for end, length in self._held if end > arrival]
        total, count, may_send = sum(length for _, length in held), len(held), now
        for end, length in held:
            if total + size <= self._capacity and count < self._messages:
                break
            may_send, total, count = max(now, end - request_time), total - length, count - 1
        return may_send

    def sent(self, now: float, sequence: int, size: int, request_time: float, answer_time: float) -> None:
        """Request `sequence` goes out now; its answer takes `answer_time` on the wire."""
        self._uplink_free = max(now, self._uplink_free) + request_time
        self._downlink_free = max(self._uplink_free, self._downlink_free) + answer_time
        while self._held and self._held[0][0] <= now:
            self._held.popleft()
        self._held.append((self._downlink_free, size))
        self._expected[sequence] = self._downlink_free

    def answered(self, now: float, sequence: int) -> None:
        """Its answer came. When even the quickest of late lag more than they used to, so does the device's buffer."""
        expected = self._expected.pop(sequence, None)
        if expected is None:
            return
        self._lags.append(now - expected)
        if len(self._lags) < _RECENT:
            return
        least = min(self._lags)
        if self._usual is None:
            self._usual = least
        elif least > self._usual:
            self.delayed(least - self._usual)
            self._lags.clear()

    def delayed(self, by: float) -> None:
        """Something else took the line from the device for so long: every answer that did not come yet is later."""
        self._held = deque((end + by, length) for end, length in self._held)
        self._expected = {sequence: end + by for sequence, end in self._expected.items()}
        self._downlink_free += by
