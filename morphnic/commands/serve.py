"""Share one device with many clients, here and on other machines: they open it as `unix://PATH` or `tcp://HOST:PORT`.

Without --listen it listens on a Unix socket that is this user's alone; `tcp://` without a host is this machine alone.
To listen on any other address, clients must prove who they are: by a token (--token-file, or MORPHNIC_TOKEN_FILE, or
MORPHNIC_TOKEN), or by a certificate (--tls-client-ca). Readers are free; one client at a time may write.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import signal
import socket
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from morphnic.devices import add_device_flag, choose, explained
from morphnic.errors import EnvironmentFault, InputError
from morphnic.program import Context

if TYPE_CHECKING:
    from device_link.sharing import DeviceServer

READY_KIND = "serve"


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `morphnic serve`."""
    add_device_flag(parser)
    parser.add_argument("--name", default="served", help="name in the run directory (default: served)")
    parser.add_argument("--listen", action="append", default=[], metavar="URL",
                        help="tcp://[HOST][:PORT] or unix:///PATH, besides the socket in the run directory; may be "
                             "repeated")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="what tcp:// clients must prove to know")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate (PEM): tcp:// is encrypted")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, if it is not in the same file")
    parser.add_argument("--tls-client-ca", type=Path, metavar="FILE", help="take clients with a certificate of this CA")
    parser.add_argument("--lease", type=float, default=30.0, metavar="SECONDS",
                        help="a writer that is silent for so long gives way to another (default 30)")
    parser.add_argument("--timeout", type=float, default=1.0, metavar="SECONDS",
                        help="of an exchange with the device (default 1)")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Serve until SIGTERM or SIGINT."""
    import device_link
    from device_link import rundir
    from device_link.sharing import DeviceServer

    for flag in ("lease", "timeout"):
        if not getattr(arguments, flag) > 0:
            raise InputError(f"--{flag} must be over 0, not {getattr(arguments, flag)}")
    try:
        rundir.check_name(arguments.name)
    except ValueError as error:
        raise InputError(f"--{error}") from error
    doors = Doors(arguments)
    url = choose(context)
    with rundir.claimed(arguments.name) as folder:
        rundir.remove_ready(folder)
        with explained():
            server = DeviceServer(
                arguments.name, lambda: device_link.open_transport(url, writer=True, timeout=arguments.timeout),
                lease=arguments.lease)
        with stopped_by_signals(server):
            try:
                listen(context, server, doors, rundir.socket_path(arguments.name), folder)
                server.run()
            finally:
                rundir.remove_ready(folder)
                server.close()
    return 0


class Doors:
    """Where to listen, and who may come in; everything that can be wrong with it is found here."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from device_link.access import find_token
        from device_link.remote import address_of, server_tls

        self.unix: list[Path] = []
        self.tcp: list[tuple[str, int]] = []
        for url in arguments.listen:
            parts = urlsplit(url)
            if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
                self.unix.append(Path(unquote(parts.path)))
            elif parts.scheme == "tcp" and not parts.query:
                self.tcp.append(address_of(url, parts))
            else:
                raise InputError(f"--listen must be tcp://[HOST][:PORT] or unix:///PATH, not {url!r}")
        self.tls: ssl.SSLContext | None = None
        if arguments.tls_cert is not None:
            self.tls = server_tls(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca)
        elif arguments.tls_key is not None or arguments.tls_client_ca is not None:
            raise InputError("--tls-key and --tls-client-ca need --tls-cert")
        self.token = find_token(arguments.token_file)
        open_to_all = self.token is None and arguments.tls_client_ca is None
        for host, port in self.tcp:
            if open_to_all and not loopback(host):
                raise InputError(
                    f"tcp://{host}:{port} can be reached from other machines, and anybody could write the device: give "
                    "--token-file FILE (make one with `openssl rand -hex 32`) or --tls-client-ca, or listen on "
                    "tcp://127.0.0.1")


def loopback(host: str) -> bool:
    """Whether `host` is this machine alone, whatever it resolves to."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError as error:
        raise InputError(f"--listen: there is no host {host!r} ({error})") from error
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


@contextlib.contextmanager
def stopped_by_signals(server: DeviceServer) -> Iterator[None]:
    """SIGTERM and SIGINT end `run` in order."""
    previous = [(number, signal.signal(number, server.stop)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        yield
    finally:
        for number, handler in previous:
            signal.signal(number, handler)


def listen(context: Context, server: DeviceServer, doors: Doors, own: Path, folder: Path) -> None:
    """Open the doors, print their URLs, and publish the ready file."""
    from device_link import rundir

    urls = []
    for path in (own, *doors.unix):
        try:
            server.listen_unix(path)
        except OSError as error:
            raise EnvironmentFault(f"cannot listen on {path} ({error.strerror}): choose a folder that you may write "
                                   "to") from error
        urls.append(f"unix://{path}")
    for host, port in doors.tcp:
        try:
            bound = server.listen_tcp((host, port), token=doors.token, tls=doors.tls)
        except OSError as error:
            raise EnvironmentFault(f"cannot listen on {host} port {port} ({os.strerror(error.errno or 0)}): choose "
                                   f"another port, such as --listen tcp://{host}:0") from error
        urls.append(f"tcp://{f'[{host}]' if ':' in host else host}:{bound}")
    told = server.describe()
    rundir.write_ready(folder, rundir.ReadyFile(
        name=server.name, pid=os.getpid(), socket=str(own), pty=None, map_hash=told["map_hash"],
        build_id=told["build_id"], capabilities=server.capabilities, serves=server.url))
    announce(context, server.url, urls)


def announce(context: Context, device: str, urls: Sequence[str]) -> None:
    """Where the device can be reached now."""
    if context.json:
        context.line(READY_KIND, {"device": device, "urls": list(urls)})
    else:
        print("\n".join(urls), flush=True)
