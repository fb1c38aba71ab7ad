"""`uart:///dev/ttyUSB0?baud=3000000`: a device on a serial port, or on a pseudo-terminal that stands for one.

The port is taken for this process alone (pyserial's `exclusive`, a `flock`): two programs on one line would take
each other's answers. A port that goes away (a cable is pulled, a board loses its power) is opened again by its name
when it is back: use a name under `/dev/serial/by-id`, which stays that of the board. Set the FTDI latency timer to
1 ms, or each exchange waits for 16. `baud` also tells how long an answer may take: for a simulated device whose pins
are driven bit by bit, give its rate in wall time (`?baud=5000`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import termios
import time

import serial

from morphnic.errors import DeviceBusy, DeviceNotFound, EnvironmentFault, LinkError, LinkLost, MorphnicError

from .linked import SessionTransport
from .pipe import ByteChannel, FramedPipe
from .transport import Capability

DEFAULT_BAUD = 1_000_000
_WRITE_TIMEOUT = 10.0
_BREAK_SECONDS = 0.005  # more than twelve bits at 2,400 baud
_BITS_PER_BYTE = 10  # 8N1
_BETWEEN_ATTEMPTS = 0.05  # seconds between looks for a port that went away


class SerialChannel(ByteChannel):
    """A serial port opened for this process alone."""

    def __init__(self, port: str, baud: int) -> None:
        self._name = port
        self._baud = baud
        self._port = self._open()

    def _open(self) -> serial.Serial:
        try:
            port = serial.Serial(self._name, self._baud, exclusive=True, timeout=0, write_timeout=_WRITE_TIMEOUT)
        except (OSError, ValueError) as error:
            raise _refusal(self._name, self._baud, error) from error
        with contextlib.suppress(OSError, ValueError, NotImplementedError, AttributeError):
            port.set_low_latency_mode(True)  # a pseudo-terminal and some drivers do not know it
        try:
            port.reset_input_buffer()
        except termios.error as error:  # gone again
            port.close()
            raise _refusal(self._name, self._baud, OSError(*error.args)) from error
        return port

    def reopen(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the port to be there again, and ours."""
        self._port.close()
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._port = self._open()
                return
            except MorphnicError:  # not there; or there, and not yet given its owner
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_BETWEEN_ATTEMPTS)

    @property
    def bytes_per_second(self) -> float:
        """Rate of the line."""
        return self._baud / _BITS_PER_BYTE

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        try:
            self._port.write(data)
        except OSError as error:
            raise self._gone(f"writing failed ({error})") from error

    def greet(self) -> None:
        """Hold the line low for `_BREAK_SECONDS`, then send 0x55 at once: the device takes this port's rate from it."""
        with contextlib.suppress(OSError, termios.error):  # a pseudo-terminal has no break, and no rate
            self._port.flush()
            self._port.break_condition = True
            time.sleep(_BREAK_SECONDS)
            self._port.break_condition = False
        self.write(b"\x55")

    def read(self, timeout: float) -> bytes:
        """Bytes that arrived."""
        try:
            # pyserial sets the whole port up again whenever its time-out changes: wait and read without it.
            descriptor = self._port.fileno()
            if not select.select([descriptor], [], [], timeout)[0]:
                return b""
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise self._gone(f"reading failed ({error.strerror or error})") from error
        if not data:
            raise self._gone("the port was closed by the other side")
        return data

    def _gone(self, how: str) -> LinkLost:
        """Let go of the port, so that its name is free for it when it comes back."""
        self._port.close()
        return LinkLost(f"{self._name}: {how}: is the cable still there?")

    def fileno(self) -> int | None:
        """Descriptor of the port; None while it is gone."""
        return int(self._port.fileno()) if self._port.is_open else None

    def close(self) -> None:
        """Close the port, which releases it for others."""
        self._port.close()


def _refusal(port: str, baud: int, error: OSError | ValueError) -> Exception:
    number = getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return DeviceNotFound(f"there is no serial port {port}: `morphnic list` shows those that exist")
    if number in (errno.EACCES, errno.EPERM):
        return EnvironmentFault(f"no permission to open {port}: add your user to the group that owns it "
                                "(dialout on Debian) and log in again")
    if number in (errno.EBUSY, errno.EAGAIN) or "lock" in str(error):
        return DeviceBusy(f"{port} is in use by another program: close it first")
    if isinstance(error, ValueError):
        return LinkError(f"{port} cannot be set to {baud} baud: {error}")
    if getattr(error.__context__, "args", ())[:1] == (errno.ENOTTY,):  # pyserial keeps the number out of its error
        return LinkError(f"{port} is no serial port: `morphnic list` shows those that exist")
    return LinkError(f"{port} cannot be opened: {error}")


def open_uart(port: str, *, url: str, baud: int = DEFAULT_BAUD, timeout: float = 1.0,
              writer: bool = False) -> SessionTransport:
    """Transport to the device on `port`."""
    if baud <= 0:
        raise ValueError(f"baud must be above 0, not {baud!r}")
    transport = SessionTransport(FramedPipe(SerialChannel(port, baud)), url=url, timeout=timeout, writer=writer)
    transport.capabilities |= Capability.EXCLUSIVE
    return transport
