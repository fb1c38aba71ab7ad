"""The simulated device as a process: it owns the board and serves `sim://NAME` and a virtual serial port.

The socket speaks `docs/reference/link-protocol.md`, one message a datagram. Every connection has a session of its own;
one connection at a time holds the right to write registers (`acquire`). Windows that the device pushes go to every
connection that said hello.

Control documents (message types 0x10 and 0x90) are JSON objects with `op`, and `schema` 1 if given. The answer has
`ok`; a refusal has `ok` false, `reason` (`busy`, `input`, `state`, `unknown`) and `error`, a text for a person.

| op | fields | answer |
| --- | --- | --- |
| acquire, release | | the right to write; it ends with the connection |
| status | | name, mode, cycle, epoch, configuration, key of the model, pty |
| advance | cycles, until (window, interrupt, drained) | lockstep only: ran, cycle; answered when the time has passed |
| wait | for: interrupt | answered when the interrupt line is high |
| load | path (npz of `sim.workloads`), at (cycle; default now), loop | first, packets, cycle |
| traffic | | counters of the board and of each tenant |
| account | | where every packet is, with the device's own drop counters |
| records | kind (completions, twins, faults), path (npy to write), since, payloads (file of bytes) | count |
| sink | port, ready (always, random, periodic, never), a, b, seed | |
| twin | cores, cycles_per_packet, cycles_per_byte | |
| waveform | path, and start or trigger; cycles, before | first, end |
| shutdown | | the process stops after the answer |

In lockstep, time moves by `advance` and by register accesses only; bytes on the serial port wait for it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from device_link import rundir
from device_link.operations import Control, Hello, MalformedMessage, WindowPush, decode_message
from device_link.responder import BusFault, Responder
from morphnic.errors import EnvironmentFault, LinkError, LinkTimeout, MorphnicError

from .board import Board, Stop
from .control import Controller, Refusal
from .options import ServerOptions, add_arguments, from_arguments
from .pty import VirtualSerialPort

log = logging.getLogger(__name__)

GRANT_CHUNK = 50_000  # cycles of a grant between looks at the sockets
FREE_SLICE = 0.004  # seconds of free running between looks at the sockets
_DATAGRAM_BYTES = 1 << 18
_KEPT_DATAGRAMS = 512  # to a connection that does not read; windows beyond are dropped
_STOPS = {"window": Stop.WINDOW, "interrupt": Stop.INTERRUPT, "drained": Stop.DRAINED}


class BoardBus:
    """The board's registers for a responder; writing needs the lease of the connection."""

    def __init__(self, board: Board, may_write: Any) -> None:
        self._board, self._may_write = board, may_write

    def read(self, address: int) -> int:
        """The word at a byte address; raises `BusFault`."""
        try:
            return self._board.read(address // 4)
        except LinkTimeout as error:
            log.error("%s", error)
            raise BusFault from error
        except LinkError as error:
            raise BusFault from error

    def write(self, address: int, word: int) -> None:
        """Write a word; raises `BusFault` without the right to."""
        if not self._may_write():
            log.warning("write to 0x%05x refused: this connection does not hold the right to write", address)
            raise BusFault
        try:
            self._board.write(address // 4, word)
        except LinkTimeout as error:
            log.error("%s", error)
            raise BusFault from error
        except LinkError as error:
            raise BusFault from error


class Connection:
    """One client: its session, and the datagrams that it has not taken yet."""

    def __init__(self, peer: socket.socket, server: Server) -> None:
        self.socket = peer
        self.hello = False
        self.dropped_windows = 0
        self.outgoing: deque[bytes] = deque()
        bus = BoardBus(server.board, lambda: server.writer is self)
        self.responder = Responder(bus, boot_nonce=server.board.boot_nonce)

    def send(self, message: bytes) -> None:
        """Queue an answer."""
        self.outgoing.append(message)

    def push(self, message: bytes) -> None:
        """Queue a window, unless the client has stopped reading."""
        if not self.hello:
            return
        if len(self.outgoing) < _KEPT_DATAGRAMS:
            self.outgoing.append(message)
        else:
            self.dropped_windows += 1

    def flush(self) -> None:
        """Send what the socket takes now; raises `OSError` when the client is gone."""
        while self.outgoing:
            try:
                self.socket.send(self.outgoing[0])
            except BlockingIOError:
                return
            self.outgoing.popleft()


class Server:
    """The event loop of one simulated device. One thread; the board is advanced between looks at the sockets."""

    def __init__(self, options: ServerOptions, board: Board, folder: Path) -> None:
        self.options, self.board, self.folder = options, board, folder
        self.writer: Connection | None = None
        self.connections: dict[int, Connection] = {}
        self.serial: VirtualSerialPort | None = None
        self.controller = Controller(board, options)
        self._grants: deque[tuple[Connection, int, int, Stop, int]] = deque()
        self._waiters: list[tuple[Connection, int]] = []
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._stop = False
        self._rate = 500_000.0  # cycles a second, measured: only how often sockets are looked at depends on it
        self._base = (time.monotonic(), 0)

    # Life

    def listen(self, path: Path) -> None:
        """Open the socket (and the serial port), and publish the ready file."""
        path.unlink(missing_ok=True)  # the lock is ours: whoever made it is gone
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(path))
        os.chmod(path, 0o600)
        listener.listen(16)
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        if self.options.pty:
            self.serial = VirtualSerialPort(self.folder / "uart")
            self._selector.register(self.serial.master, selectors.EVENT_READ, self._serial_in)
            self.board.link_mode(pins=self.options.uart_bits)
        if self.options.stop_on_eof:
            self._selector.register(sys.stdin, selectors.EVENT_READ, self._standard_input)
        wake, wake_in = os.pipe()
        os.set_blocking(wake_in, False)
        signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
        self._selector.register(wake, selectors.EVENT_READ, lambda: os.read(wake, 64))
        self._publish(path)

    def _publish(self, path: Path) -> None:
        capabilities = ["WINDOWS", "CONTROL", "EXCLUSIVE"] + ["TIME_GRANTS"] * self.options.lockstep
        ready = rundir.ReadyFile(
            name=self.options.name, pid=os.getpid(), socket=str(path),
            pty=self.serial.path if self.serial else None, map_hash=self._identity(1),
            build_id=self._identity(2) | self._identity(3) << 32,
            time="lockstep" if self.options.lockstep else "free-running", capabilities=tuple(capabilities))
        rundir.write_ready(self.folder, ready)
        log.info("%s is ready (%s%s)", ready.url, ready.time, f", serial port {ready.pty}" if ready.pty else "")
        if self.options.ready_fd is not None:
            os.write(self.options.ready_fd, b"ready\n")
            os.close(self.options.ready_fd)

    def _identity(self, word: int) -> int:
        try:
            return self.board.read(word)
        except LinkError:
            return 0  # a top level without an ID block (a test fixture)

    def stop(self, *_: object) -> None:
        """End the loop; also a signal handler."""
        self._stop = True

    def close(self) -> None:
        """Withdraw the ready file, close everything."""
        rundir.remove_ready(self.folder)
        for connection in list(self.connections.values()):
            self._drop(connection)
        if self._listener is not None:
            self._listener.close()
        if self.serial is not None:
            self.serial.close()
        (self.folder / rundir.SOCKET_NAME).unlink(missing_ok=True)
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self.board.close()

    def run(self) -> None:
        """Serve until stopped."""
        while not self._stop:
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._pass_time()
            self._deliver()

    def _patience(self) -> float | None:
        if self._grants:
            return 0.0
        if self.options.lockstep:
            return None
        if not self.options.pace:
            return 0.0
        ahead = self.board.cycle - self._due()
        return min(max(ahead / self.options.pace, 0.0), 0.05) if ahead > 0 else 0.0

    # Time

    def _due(self) -> int:
        """Cycle at which a paced free run should be now."""
        started, cycle = self._base
        return cycle + int((time.monotonic() - started) * self.options.pace)

    def _pass_time(self) -> None:
        if self.options.lockstep:
            if self._grants:
                self._run_grant()
            return
        cycles = max(int(self._rate * FREE_SLICE), 256)
        if self.options.pace:
            behind = self._due() - self.board.cycle
            if behind > self.options.pace // 4:  # too slow a machine: the pace is not caught up for ever
                self._base = (time.monotonic(), self.board.cycle)
            cycles = min(cycles, max(behind, 0))
        if cycles:
            started = time.perf_counter()
            ran = self.board.advance(cycles)
            self._rate = 0.8 * self._rate + 0.2 * ran / max(time.perf_counter() - started, 1e-6)

    def _run_grant(self) -> None:
        connection, sequence, left, until, ran = self._grants.popleft()
        chunk = min(left, GRANT_CHUNK)
        now = self.board.advance(chunk, until)
        ran, left = ran + now, left - now
        self._push_windows()
        if left and now == chunk:
            self._grants.appendleft((connection, sequence, left, until, ran))
            return
        self._answer(connection, sequence, {"ok": True, "ran": ran, "cycle": self.board.cycle})

    # Input

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            peer, _ = self._listener.accept()
        except BlockingIOError:
            return
        peer.setblocking(False)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        connection = Connection(peer, self)
        self.connections[peer.fileno()] = connection
        self._selector.register(peer, selectors.EVENT_READ, lambda: self._receive(connection))

    def _receive(self, connection: Connection) -> None:
        try:
            while True:
                message = connection.socket.recv(_DATAGRAM_BYTES)
                if not message:
                    self._drop(connection)
                    return
                self._handle(connection, message)
        except BlockingIOError:
            return
        except OSError as error:
            log.info("a connection ended: %s", error.strerror)
            self._drop(connection)

    def _handle(self, connection: Connection, message: bytes) -> None:
        with contextlib.suppress(MalformedMessage):  # answered by the responder, as the device would
            decoded = decode_message(message)
            if isinstance(decoded, Control) and not decoded.answer:
                self._control(connection, decoded)
                return
            connection.hello |= isinstance(decoded, Hello)
        connection.send(connection.responder.handle(message))

    def _control(self, connection: Connection, message: Control) -> None:
        try:
            document = json.loads(message.document)
            if not isinstance(document, dict):
                raise Refusal("input", "a control document is a JSON object")
            answer = self._operate(connection, message.sequence, document)
        except (ValueError, KeyError, TypeError) as error:
            answer = {"ok": False, "reason": "input", "error": f"control document: {error}"}
        except Refusal as error:
            answer = {"ok": False, "reason": error.reason, "error": str(error)}
        except (MorphnicError, OSError) as error:
            answer = {"ok": False, "reason": "input", "error": str(error)}
        if answer is not None:
            self._answer(connection, message.sequence, answer)

    def _operate(self, connection: Connection, sequence: int, document: dict[str, Any]) -> dict[str, Any] | None:
        """Answer to an operation; None when it is answered later."""
        if document.get("schema", 1) != 1:
            raise Refusal("input", f"control documents have schema 1 here, not {document['schema']!r}")
        op = document.get("op")
        if op == "acquire":
            return self._acquire(connection)
        if op == "release":
            if self.writer is connection:
                self.writer = None
            return {"ok": True}
        if op == "advance":
            self._advance(connection, sequence, document)
            return None
        if op == "wait":
            if document.get("for") != "interrupt":
                raise Refusal("input", f"for must be interrupt, not {document.get('for')!r}")
            self._waiters.append((connection, sequence))
            return None
        if op == "shutdown":
            self.stop()
            return {"ok": True}
        answer = self.controller.operate(str(op), document)
        if op == "status":
            answer |= {"pty": self.serial.path if self.serial else None, "connections": len(self.connections),
                       "writer": self.writer is not None}
        return answer

    def _acquire(self, connection: Connection) -> dict[str, Any]:
        if self.writer is not None and self.writer is not connection:
            raise Refusal("busy", f"another connection holds the right to write sim://{self.options.name}")
        self.writer = connection
        return {"ok": True}

    def _advance(self, connection: Connection, sequence: int, document: dict[str, Any]) -> None:
        if not self.options.lockstep:
            raise Refusal("state", f"sim://{self.options.name} runs freely: time is not granted; "
                          "start it with --mode lockstep")
        if self.writer is not None and self.writer is not connection:
            raise Refusal("busy", "another connection holds the right to write, and grants the time")
        cycles, until = document["cycles"], document.get("until")
        if not isinstance(cycles, int) or cycles < 0:
            raise Refusal("input", f"cycles must be a number of at least 0, not {cycles!r}")
        if until is not None and until not in _STOPS:
            raise Refusal("input", f"until must be one of {', '.join(_STOPS)}, not {until!r}")
        stop = _STOPS[until] if until is not None else Stop.NOTHING
        self._grants.append((connection, sequence, cycles, stop, 0))

    def _serial_in(self) -> None:
        assert self.serial is not None
        data = self.serial.read()
        if data:
            self.board.link_write(data)

    def _standard_input(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            self.stop()

    # Output

    def _answer(self, connection: Connection, sequence: int, answer: dict[str, Any]) -> None:
        document = json.dumps({"schema": 1, **answer}).encode()
        connection.send(Control(0, sequence, document, answer=True).encode())

    def _push_windows(self) -> None:
        for words in self.board.windows():
            message = WindowPush(words.astype("<u4").tobytes()).encode()
            for connection in self.connections.values():
                connection.push(message)

    def _deliver(self) -> None:
        self._push_windows()
        if self._waiters and self.board.interrupt:
            for connection, sequence in self._waiters:
                self._answer(connection, sequence, {"ok": True, "cycle": self.board.cycle})
            self._waiters.clear()
        if self.serial is not None:
            self.serial.write(self.board.link_read())
        for connection in list(self.connections.values()):
            self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        try:
            connection.flush()
        except OSError as error:
            log.info("a connection ended: %s", error.strerror)
            self._drop(connection)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.outgoing else 0)
        key = self._selector.get_key(connection.socket)
        if key.events != events:
            self._selector.modify(connection.socket, events, key.data)

    def _drop(self, connection: Connection) -> None:
        if self.connections.pop(connection.socket.fileno(), None) is None:
            return
        self._selector.unregister(connection.socket)
        connection.socket.close()
        if self.writer is connection:
            self.writer = None
        self._waiters = [one for one in self._waiters if one[0] is not connection]
        # A grant that was given stays given: time has no owner.


@contextlib.contextmanager
def _claimed(name: str) -> Any:
    """The device's folder, held by a lock as long as this process lives."""
    folder = rundir.device_dir(rundir.check_name(name))
    folder.mkdir(mode=0o700, exist_ok=True)
    with open(folder / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            raise EnvironmentFault(f"the name {name!r} is in use by process {owner}: choose another name, or stop "
                                   "that device first") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield folder


def serve(options: ServerOptions) -> int:
    """Run one simulated device until SIGTERM, SIGINT or `shutdown`; the exit code."""
    try:
        rundir.check_name(options.name)
    except ValueError as error:
        raise EnvironmentFault(str(error)) from error
    with _claimed(options.name) as folder:
        rundir.remove_ready(folder)
        board = Board(options.config, component=options.component(), uid=options.uid,
                      boot_nonce=options.boot_nonce())
        server = Server(options, board, folder)
        previous = [(number, signal.signal(number, server.stop)) for number in (signal.SIGTERM, signal.SIGINT)]
        try:
            server.listen(rundir.socket_path(options.name))
            server.run()
            server._deliver()
        finally:
            server.close()
            for number, handler in previous:
                signal.signal(number, handler)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m sim.server`: the same as `morphnic sim run`."""
    parser = argparse.ArgumentParser(prog="python -m sim.server", description="Run one simulated device.")
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        return serve(from_arguments(arguments))
    except MorphnicError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
