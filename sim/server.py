"""The simulated device as a process: it owns the board and serves `sim://NAME` and a virtual serial port.

The socket is that of every server of a device (`device_link.serving`): sessions, the right to write, and the control
documents `attach`, `acquire`, `release` and `describe` are its. Windows that the device pushes go to every client
that said hello. A device with a PCIe endpoint has the sockets `pcie.sock` (`sim.pcie`) and
`vfio-user.sock` (`sim.vfio_user`) beside it. What is here is the device's time, and the control of the simulation:

Control documents (message types 0x10 and 0x90) are JSON objects with `op`, and `schema` 1 if given. The answer has
`ok`; a refusal has `ok` false, `reason` (`busy`, `input`, `state`, `unknown`) and `error`, a text for a person.

| op | fields | answer |
| --- | --- | --- |
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
| reset | | boot_nonce: the device began anew, as a board that is configured; its serial port stays |
| shutdown | | the process stops after the answer |

In lockstep, time moves by `advance` and by register accesses only; bytes on the serial port wait for it.
"""

from __future__ import annotations

import argparse
import logging
import os
import selectors
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from device_link import rundir
from device_link.operations import Operation, Status, WindowPush
from device_link.pcie.simulated import SOCKET_NAME as PCIE_SOCKET
from device_link.responder import BusFault, carry_out
from device_link.serving import Client, LinkServer, Refusal
from morphnic.errors import EnvironmentFault, LinkError, LinkTimeout, MorphnicError

from .board import Board, Stop
from .control import Controller
from .function_socket import FunctionSocket
from .options import ServerOptions, add_arguments, from_arguments
from .pcie import PcieSocket
from .pty import VirtualSerialPort
from .root_complex import RootComplex
from .vfio_user import SOCKET_NAME as VFIO_USER_SOCKET
from .vfio_user import VfioUserSocket

log = logging.getLogger(__name__)

GRANT_CHUNK = 50_000  # cycles of a grant between looks at the sockets
FREE_SLICE = 0.004  # seconds of free running between looks at the sockets
_STOPS = {"window": Stop.WINDOW, "interrupt": Stop.INTERRUPT, "drained": Stop.DRAINED}


class BoardBus:
    """The board's registers for a responder."""

    def __init__(self, board: Board) -> None:
        self._board = board

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
        """Write a word; raises `BusFault`."""
        try:
            self._board.write(address // 4, word)
        except LinkTimeout as error:
            log.error("%s", error)
            raise BusFault from error
        except LinkError as error:
            raise BusFault from error


class Server(LinkServer):
    """The event loop of one simulated device. One thread; the board is advanced between looks at the sockets."""

    def __init__(self, options: ServerOptions, board: Board, folder: Path) -> None:
        super().__init__(options.name, url=f"sim://{options.name}", boot_nonce=board.boot_nonce,
                         capabilities=["WINDOWS", "CONTROL", "EXCLUSIVE"] + ["TIME_GRANTS"] * options.lockstep)
        self.options, self.board, self.folder = options, board, folder
        self.serial: VirtualSerialPort | None = None
        self.root: RootComplex | None = None
        self.functions: list[FunctionSocket] = []
        self.controller = Controller(board, options)
        self._bus = BoardBus(board)
        self._build = {"map_hash": 0, "build_id": 0}
        self._grants: deque[tuple[Client, int, int, Stop, int]] = deque()
        self._waiters: list[tuple[Client, int]] = []
        self._rate = 500_000.0  # cycles a second, measured: only how often sockets are looked at depends on it
        self._base = (time.monotonic(), 0)

    # Life

    def listen(self, path: Path) -> None:
        """Open the socket (and the serial port), and publish the ready file."""
        self.listen_unix(path)
        if self.options.pty:
            self.serial = VirtualSerialPort(self.folder / "uart")
            self.selector.register(self.serial.master, selectors.EVENT_READ, self._serial_in)
        self._attach_board()
        if self.options.stop_on_eof:
            self.selector.register(sys.stdin, selectors.EVENT_READ, self._standard_input)
        self._publish(path)

    def _attach_board(self) -> None:
        """Connect what is outside to a device that begins."""
        if self.options.pty:
            self.board.link_mode(pins=self.options.uart_bits)
        if self.options.config.pcie_width:
            self.root = RootComplex(self.board)
            self.functions = [PcieSocket(self.root, self.folder / PCIE_SOCKET, self.selector),
                              VfioUserSocket(self.root, self.folder / VFIO_USER_SOCKET, self.selector)]

    def _reset_device(self, client: Client) -> dict[str, Any]:
        """As a board that is configured: what was under way is lost, sessions are unknown, the serial port stays."""
        if self.writer is not None and self.writer is not client:
            raise Refusal("busy", f"{self.writer.name} holds the right to write {self.url}")
        for waiting, sequence, *_ in self._grants:
            self.answer(waiting, sequence, {"ok": False, "reason": "state", "error": "the device was reset"})
        self._grants.clear()
        for function in self.functions:
            function.close()  # whoever holds it sees it unplugged
        self.board.reset()
        self._base = (time.monotonic(), 0)
        self.reset(self.board.boot_nonce)
        self._attach_board()
        log.info("%s was reset", self.url)
        return {"ok": True, "boot_nonce": self.board.boot_nonce}

    def _publish(self, path: Path) -> None:
        # Read once: in lockstep each access passes time, and who asks for a description must not change a run.
        self._build = {"map_hash": self._identity(1), "build_id": self._identity(2) | self._identity(3) << 32}
        ready = rundir.ReadyFile(
            name=self.options.name, pid=os.getpid(), socket=str(path),
            pty=self.serial.path if self.serial else None, pcie=self.root is not None,
            map_hash=self._build["map_hash"], build_id=self._build["build_id"],
            time="lockstep" if self.options.lockstep else "free-running", capabilities=self.capabilities)
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

    def describe(self) -> dict[str, Any]:
        """Name, serial number and build of the device."""
        return {"url": self.url, "board": "simulated", "uid": self.board.uid, **self._build}

    def close(self) -> None:
        """Withdraw the ready file, close everything."""
        rundir.remove_ready(self.folder)
        if self.serial is not None:
            self.serial.close()
        for function in self.functions:
            function.close()
        super().close()
        self.board.close()

    def run(self) -> None:
        """Serve until stopped."""
        while not self.stopped:
            self.step(self._patience())
            self._pass_time()
            self.deliver()

    def carry_out(self, operations: Sequence[Operation], *, repetition: bool = False) -> tuple[
            list[int], Status, int]:
        """On the board, word by word."""
        return carry_out(self._bus, operations, repetition=repetition)

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
        client, sequence, left, until, ran = self._grants.popleft()
        chunk = min(left, GRANT_CHUNK)
        now = self.board.advance(chunk, until)
        ran, left = ran + now, left - now
        self._push_windows()
        if left and now == chunk:
            self._grants.appendleft((client, sequence, left, until, ran))
            return
        self.answer(client, sequence, {"ok": True, "ran": ran, "cycle": self.board.cycle})

    # Control

    def operate(self, client: Client, sequence: int, document: dict[str, Any]) -> dict[str, Any] | None:
        """Answer to an operation on the simulation; None when it is answered later."""
        op = document.get("op")
        if op == "advance":
            self._advance(client, sequence, document)
            return None
        if op == "wait":
            if document.get("for") != "interrupt":
                raise Refusal("input", f"for must be interrupt, not {document.get('for')!r}")
            self._waiters.append((client, sequence))
            return None
        if op == "reset":
            return self._reset_device(client)
        if op == "shutdown":
            self.stop()
            return {"ok": True}
        answer = self.controller.operate(str(op), document)
        if op == "status":
            answer |= {"pty": self.serial.path if self.serial else None, "connections": len(self.clients),
                       "writer": self.writer is not None}
        return answer

    def _advance(self, client: Client, sequence: int, document: dict[str, Any]) -> None:
        if not self.options.lockstep:
            raise Refusal("state", f"sim://{self.options.name} runs freely: time is not granted; "
                          "start it with --mode lockstep")
        if self.writer is not None and self.writer is not client:
            raise Refusal("busy", f"{self.writer.name} holds the right to write, and grants the time")
        cycles, until = document["cycles"], document.get("until")
        if not isinstance(cycles, int) or cycles < 0:
            raise Refusal("input", f"cycles must be a number of at least 0, not {cycles!r}")
        if until is not None and until not in _STOPS:
            raise Refusal("input", f"until must be one of {', '.join(_STOPS)}, not {until!r}")
        stop = _STOPS[until] if until is not None else Stop.NOTHING
        self._grants.append((client, sequence, cycles, stop, 0))

    def _serial_in(self) -> None:
        assert self.serial is not None
        data = self.serial.read()
        if data:
            self.board.link_write(data)

    def _standard_input(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            self.stop()

    # Output

    def _push_windows(self) -> None:
        for words in self.board.windows():
            self.push(WindowPush(words.astype("<u4").tobytes()).encode())

    def deliver(self) -> None:
        """Send what the device and its clients have to say."""
        self._push_windows()
        if self._waiters and self.board.interrupt:
            for client, sequence in self._waiters:
                self.answer(client, sequence, {"ok": True, "cycle": self.board.cycle})
            self._waiters.clear()
        if self.serial is not None:
            self.serial.write(self.board.link_read())
        if self.root is not None and (vectors := self.root.messages()):
            for function in self.functions:
                function.deliver(vectors)
        super().deliver()

    def drop(self, client: Client, why: str) -> None:
        """It waits for no interrupt any more; a grant that was given stays given: time has no owner."""
        super().drop(client, why)
        self._waiters = [one for one in self._waiters if one[0] is not client]


def serve(options: ServerOptions) -> int:
    """Run one simulated device until SIGTERM, SIGINT or `shutdown`; the exit code."""
    try:
        rundir.check_name(options.name)
    except ValueError as error:
        raise EnvironmentFault(str(error)) from error
    with rundir.claimed(options.name) as folder:
        rundir.remove_ready(folder)
        board = Board(options.config, component=options.component(), uid=options.uid,
                      boot_nonce=options.boot_nonce())
        server = Server(options, board, folder)
        previous = [(number, signal.signal(number, server.stop)) for number in (signal.SIGTERM, signal.SIGINT)]
        try:
            server.listen(rundir.socket_path(options.name))
            server.run()
            server.deliver()
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
