"""From a device URL to a transport and a `Device`.

`uart:///dev/ttyUSB0?baud=3000000`, `pcie://0000:03:00.0`, `pcie://NAME` (of a simulated device), `sim://`, `sim://NAME`,
`sim:///path/device.sock`, `tcp://HOST:PORT`, `unix:///path/device.sock`, `replay://FILE`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from morphnic.errors import InputError

from .device import Device
from .pcie import open_pcie
from .recording import Recorder
from .remote import TCP_OPTIONS, open_tcp, open_unix
from .replay import ReplayTransport
from .sim import open_sim
from .transport import Transport
from .uart import DEFAULT_BAUD, open_uart


def _uart(url: str, parts: SplitResult, options: dict[str, str], timeout: float, writer: bool) -> Transport:
    baud = options.pop("baud", str(DEFAULT_BAUD))
    if not baud.isdigit() or not int(baud):
        raise InputError(f"baud in {url} must be a number above 0, not {baud!r}")
    if not parts.path:
        raise InputError(f"{url} names no serial port: use uart:///dev/ttyUSB0; `morphnic list` shows the ports")
    return open_uart(unquote(parts.netloc + parts.path), url=url, baud=int(baud), timeout=timeout, writer=writer)


def _pcie(url: str, parts: SplitResult, options: dict[str, str], timeout: float, writer: bool) -> Transport:
    return open_pcie(parts.netloc + parts.path, url=url, timeout=timeout, writer=writer)


def _sim(url: str, parts: SplitResult, options: dict[str, str], timeout: float, writer: bool) -> Transport:
    return open_sim(unquote(parts.netloc + parts.path), url=url, timeout=timeout, writer=writer)


def _tcp(url: str, parts: SplitResult, options: dict[str, str], timeout: float, writer: bool) -> Transport:
    return open_tcp(url, parts, options, timeout=timeout, writer=writer)


def _unix(url: str, parts: SplitResult, options: dict[str, str], timeout: float, writer: bool) -> Transport:
    return open_unix(Path(unquote(parts.netloc + parts.path)), url=url, timeout=timeout, writer=writer)


def _replay(url: str, parts: SplitResult, options: dict[str, str], timeout: float, writer: bool) -> Transport:
    return ReplayTransport(Path(unquote(parts.netloc + parts.path)), url=url, timeout=timeout, writer=writer)


_Opener = Callable[[str, SplitResult, dict[str, str], float, bool], Transport]
#: Options that a URL of each scheme may carry; checked before anything is opened.
_SCHEMES: dict[str, tuple[_Opener, frozenset[str]]] = {
    "uart": (_uart, frozenset({"baud"})),
    "pcie": (_pcie, frozenset()),
    "sim": (_sim, frozenset()),
    "tcp": (_tcp, TCP_OPTIONS),
    "unix": (_unix, frozenset()),
    "replay": (_replay, frozenset()),
}


def open_transport(url: str, *, writer: bool = False, timeout: float = 1.0,
                   record: str | Path | None = None) -> Transport:
    """A transport to the device at `url`, recording to `record` if given."""
    if not timeout > 0:
        raise ValueError(f"timeout must be above 0 seconds, not {timeout!r}")
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        forms = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise InputError(f"a device URL begins with one of {forms}, not {url!r}")
    opener, known = _SCHEMES[parts.scheme]
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(set(options) - known):
        able = f"it knows {', '.join(sorted(known))}" if known else "it has none"
        raise InputError(f"{url}: unknown option {', '.join(unknown)}; {able}")
    transport = opener(url, parts, options, timeout, writer)
    if record is not None:
        try:
            transport.recorder = Recorder(Path(record), url=url,
                                          capabilities=[one.name or "" for one in transport.capabilities])
        except BaseException:
            transport.close()
            raise
    return transport


def open(url: str, *, writer: bool = False, timeout: float = 1.0, record: str | Path | None = None,
         check: bool = True) -> Device:
    """The device at `url`. `check`: refuse one that was built from another register map.

    writer: take the right to change the device, which one holder has at a time (`DeviceBusy` otherwise).
    timeout: seconds without progress after which an exchange raises. record: file to record the session to.
    """
    transport = open_transport(url, writer=writer, timeout=timeout, record=record)
    try:
        return Device(transport, check=check)
    except BaseException:
        transport.close()
        raise
