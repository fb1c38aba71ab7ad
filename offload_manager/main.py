"""Own an offload device: run its control loop and answer the REST interface until interrupted."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvicorn

import device_link
from morphnic import log as logs
from morphnic.devices import resolve
from morphnic.errors import EnvironmentFault, MorphnicError
from morphnic.program import INTERRUPTED, Parser, add_global_flags, settings_from
from offload_manager.events import EventHub
from offload_manager.fault import arm_from_environment
from offload_manager.owner import DeviceOwner
from offload_manager.service import create_app
from offload_manager.settings import Listen, ManagerSettings, add_arguments, from_arguments
from offload_manager.store import SqliteStore

log = logging.getLogger(__name__)

PROG = "offload-manager"
BACKLOG = 128


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: run until a signal; expected errors are one line on stderr and an exit code."""
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    except MorphnicError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


def _main(argv: list[str]) -> int:
    parser = Parser(prog=PROG, description=__doc__)
    add_arguments(parser)
    # The device may also come from the settings files; a flag wins.
    parser.set_defaults(device=None)
    add_global_flags(parser)
    arguments = parser.parse_args(argv)
    shared = settings_from(arguments)
    named = arguments.device or shared.device
    arguments.device = resolve(named, shared.aliases) if named else ManagerSettings().device
    settings = from_arguments(arguments)
    logs.configure(form=shared.log_format, verbosity=getattr(arguments, "verbose", 0), quiet_level=logging.INFO)
    arm_from_environment()
    return run(settings)


def run(settings: ManagerSettings) -> int:
    """Serve until SIGINT or SIGTERM. The socket is taken first: a port in use must change nothing on a device."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(settings.listen))
        store = SqliteStore(settings.store_path)
        stack.callback(store.close)
        owner = DeviceOwner(settings, store, lambda: device_link.open(settings.device, writer=True), EventHub())
        stack.callback(owner.stop)
        owner.start()
        url = settings.listen if settings.listen.path else "http://{}:{}".format(*listener.getsockname()[:2])
        log.info("owns %s, answers at %s", settings.device, url)
        config = uvicorn.Config(create_app(owner), log_config=None, access_log=False, timeout_graceful_shutdown=2)
        server = _Server(config, owner.hub, settings.ready_file, str(url))
        server.run(sockets=[listener])
        return INTERRUPTED if server.signalled == signal.SIGINT else 0


class _Server(uvicorn.Server):
    """uvicorn, with a ready file, and streams of events that end when it is told to stop."""

    def __init__(self, config: uvicorn.Config, hub: EventHub, ready_file: Path | None, url: str) -> None:
        super().__init__(config)
        self.signalled: int | None = None
        self._hub, self._ready_file, self._url = hub, ready_file, url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that requests are answered, once they are."""
        await super().startup(sockets)
        if self._ready_file is not None and not self.should_exit:
            self._ready_file.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._ready_file.with_suffix(".part")
            temporary.write_text(json.dumps({"schema": "1.0", "url": self._url, "pid": os.getpid()}) + "\n")
            temporary.replace(self._ready_file)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams first: they would hold the server up."""
        self._hub.close()
        if self._ready_file is not None:
            self._ready_file.unlink(missing_ok=True)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the service in order; uvicorn would raise them again afterwards."""
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._signal) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signal(self, number: int, frame: object) -> None:
        self.signalled = number
        self.should_exit = True


@contextlib.contextmanager
def listening(listen: Listen) -> Iterator[socket.socket]:
    """A bound socket; one in use is an `EnvironmentFault` that names it and the remedy."""
    family = socket.AF_UNIX if listen.path else socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if listen.path:
            _clear_stale(listen.path)
            listener.bind(str(listen.path))
            listen.path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((listen.host, listen.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            what = f"socket {listen.path}" if listen.path else f"port {listen.port} of {listen.host}"
            raise EnvironmentFault(f"{what} is in use: stop the manager that runs there, or choose another with "
                                   "--listen") from error
        raise EnvironmentFault(f"cannot listen on {listen}: {error.strerror}: choose another with --listen") from error
    try:
        yield listener
    finally:
        listener.close()
        if listen.path:
            listen.path.unlink(missing_ok=True)


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; leave one that is in use, and what is no socket, alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
