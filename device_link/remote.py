"""`tcp://HOST:PORT` and `unix:///path`: a device that `morphnic serve` shares, here or on another machine.

Options of a `tcp://` URL: `token_file=FILE` holds the token that the server wants (else MORPHNIC_TOKEN, or the file
that MORPHNIC_TOKEN_FILE names); `tls=system` or `tls=FILE` encrypts, and trusts the certificates of the system or in
FILE; `cert=FILE` and `key=FILE` are who we are, where the server asks for it.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from morphnic.errors import InputError

from .access import find_token
from .linked import SessionTransport, open_served
from .sim import sim_pipe
from .sockets import DatagramPipe, ServerPipe, StreamPipe

DEFAULT_PORT = 8641
START = "morphnic serve"
TCP_OPTIONS = frozenset({"token_file", "tls", "cert", "key"})


def address_of(url: str, parts: SplitResult) -> tuple[str, int]:
    """Host and port of a `tcp://` URL; without a host this machine."""
    try:
        port = parts.port
    except ValueError:
        port = -1
    if port == -1 or parts.path not in ("", "/") or parts.username is not None:
        raise InputError(f"{url} must be tcp://HOST:PORT with a port in 0..65535")
    return parts.hostname or "127.0.0.1", DEFAULT_PORT if port is None else port


def open_pipe(url: str, *, timeout: float) -> ServerPipe | None:
    """A connection to the server at a `tcp://`, `unix://` or `sim://NAME` URL, for questions about it; else None."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    match parts.scheme:
        case "tcp":
            return tcp_pipe(url, parts, options, timeout=timeout)
        case "unix":
            return unix_pipe(url, Path(unquote(parts.path)), timeout=timeout)
        case "sim":
            return sim_pipe(unquote(parts.netloc + parts.path), timeout=timeout)
    return None


def tcp_pipe(url: str, parts: SplitResult, options: Mapping[str, str], *, timeout: float) -> StreamPipe:
    """A connection to the server at a `tcp://` URL."""
    host, port = address_of(url, parts)
    token = find_token(Path(options["token_file"]).expanduser() if "token_file" in options else None)
    return StreamPipe(host, port, timeout=timeout, token=token, tls=client_tls(url, options))


def unix_pipe(url: str, path: Path, *, timeout: float) -> DatagramPipe:
    """A connection to the server at the Unix socket `path`."""
    if not path.is_absolute():
        raise InputError(f"{url} must be unix:///PATH with the absolute path of a server's socket")
    return DatagramPipe(path, timeout=timeout, noun="server", start=START)


def open_tcp(url: str, parts: SplitResult, options: Mapping[str, str], *, timeout: float = 1.0,
             writer: bool = False) -> SessionTransport:
    """Transport to the device that is served at a `tcp://` URL."""
    return open_served(tcp_pipe(url, parts, options, timeout=timeout), url=url, timeout=timeout, writer=writer)


def open_unix(path: Path, *, url: str, timeout: float = 1.0, writer: bool = False) -> SessionTransport:
    """Transport to the device that is served at the Unix socket `path`."""
    return open_served(unix_pipe(url, path, timeout=timeout), url=url, timeout=timeout, writer=writer)


def client_tls(url: str, options: Mapping[str, str]) -> ssl.SSLContext | None:
    """What a client trusts and shows; None without TLS. Raises `InputError` for files that do not serve."""
    trusted = options.get("tls")
    if trusted is None:
        if "cert" in options or "key" in options:
            raise InputError(f"{url}: cert and key are for TLS: add tls=system or tls=FILE")
        return None
    try:
        context = ssl.create_default_context(cafile=None if trusted == "system" else str(Path(trusted).expanduser()))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if "cert" in options:
            context.load_cert_chain(Path(options["cert"]).expanduser(),
                                    Path(options["key"]).expanduser() if "key" in options else None)
    except OSError as error:  # ssl.SSLError is one
        raise InputError(f"{url}: the certificates cannot be used ({error.strerror or error}): "
                         "name PEM files") from error
    return context


def server_tls(cert: Path, key: Path | None, client_ca: Path | None) -> ssl.SSLContext:
    """What a server shows, and whose clients it takes. Raises `InputError` for files that do not serve."""
    try:
        for file in filter(None, (cert, key, client_ca)):
            file.open("rb").close()  # its error names the file, that of `ssl` does not
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(cert, key)
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
    except OSError as error:
        raise InputError(f"the certificates cannot be used ({error.filename or cert}: {error.strerror or error}): name "
                         "PEM files with --tls-cert, --tls-key and --tls-client-ca") from error
    return context
