"""Runs the project's own tests on a netlist with mutants: a Verilated model stands in for a component.

`installed(stand_in)` replaces `elaborate` of the component's class. Wherever a test simulates an instance with the
parameters of the target, alone or inside something else, its logic is the model; everything around it stays Amaranth.

What a test asks of the design, and what it is answered, can be recorded as a trace an instance. A mutant that answers
the whole trace alike passes that test, which can see nothing else of it: `is_seen` finds that out without Python.
"""

import contextlib
import ctypes
import inspect
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import amaranth.sim
from amaranth.hdl import Module, Signal, Value
from amaranth.sim._base import BaseProcess

from gateware.config import DeviceConfig
from sim.build import Harness, Model, Port, build
from tests.mutation.netlist import SELECT

SOURCE = Path(__file__).with_name("box.cpp")
PRIMITIVE = (int, str, bool, tuple, type(None), DeviceConfig)


class TestHangs(AssertionError):
    """The test runs far longer than on the unchanged design."""

    __test__ = False


def parameters_of(component: Any) -> tuple[Any, ...]:
    """What makes two instances of a class the same design."""
    mine = {name: value for name, value in vars(component).items()
            if isinstance(value, PRIMITIVE) and not name.startswith("_MustUse")}
    ports = tuple((path, member.flow, len(Value.cast(value)))
                  for path, member, value in component.signature.flatten(component))
    return type(component), tuple(sorted(mine.items(), key=lambda item: item[0])), ports


def _words(port: Port) -> int:
    return -(-port.width // 32)


def _moved(ports: Sequence[Port]) -> list[Port]:
    """The ports that a test drives or sees: those of the component, and the reset."""
    return [port for port in ports if port.name not in ("clk", SELECT)]


def _bindings(ports: Sequence[Port]) -> dict[str, str]:
    """`box_ports.h`: each port to its words, in the order of the names."""
    members = {port.name: port.member for port in ports}
    moved = _moved(ports)

    def words(direction: str) -> int:
        return sum(_words(port) for port in moved if port.direction == direction)

    def moves(verb: str, direction: str, words: str) -> str:
        return " ".join(f"{verb}(t.{port.member}, {words}, {_words(port)});" for port in moved
                        if port.direction == direction)

    return {"box_ports.h": "\n".join([
        "#pragma once",
        f"#define BOX_SELECT {members[SELECT]}",
        f"#define BOX_CLOCK(t, level) {'t.clk = level;' if 'clk' in members else ''}",
        f"#define BOX_IN {words('in')}", f"#define BOX_OUT {words('out')}",
        f"#define BOX_GATHER(t, in) {moves('gather', 'in', 'in')}",
        f"#define BOX_SCATTER(t, out) {moves('scatter', 'out', 'out')}", ""])}


def model_of(verilog: str) -> Model:
    """The Verilated netlist."""
    # The `vl_fatal` of Verilator's runtime ends the process: that of `box.cpp` comes first and is taken.
    harness = Harness("mutation", (SOURCE,), _bindings, version=inspect.getsource(_bindings),
                      link=("-Wl,--allow-multiple-definition",))
    return build(verilog, harness, what="the mutants")


class Library:
    """The model as a shared library."""

    def __init__(self, model: Model):
        self._library = ctypes.CDLL(str(model.library))
        self._library.box_new.restype = ctypes.c_void_p
        self._library.box_free.argtypes = [ctypes.c_void_p]
        self._library.box_trace.restype = ctypes.c_uint64
        self._library.box_trace.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._library.box_replay.restype = ctypes.c_int64
        self._library.box_replay.argtypes = [ctypes.c_uint32, ctypes.c_char_p, ctypes.c_uint64]
        self._library.box_step.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        moved = _moved(model.ports)
        self.inputs = [port for port in moved if port.direction == "in"]
        self.outputs = [port for port in moved if port.direction == "out"]
        self.new, self.free, self.step = (self._library.box_new, self._library.box_free, self._library.box_step)

    def trace(self, box: int) -> bytes:
        """What was recorded of a box."""
        buffer = ctypes.create_string_buffer(self._library.box_trace(box, None))
        self._library.box_trace(box, buffer)
        return buffer.raw

    def replay(self, mutant: int, trace: bytes) -> int:
        """Cycles until a mutant answers otherwise than the trace says; -1 when it never does."""
        return int(self._library.box_replay(mutant, trace, len(trace)))


class Box(BaseProcess):
    """One instance, as a process of Amaranth's engine: keeps the component's outputs what the model says.

    Not a process of the public interface: that evaluates every signal that it waits for each time, which took seven
    tenths of the time of a test.
    """

    runnable, critical = True, False   # runs once at the start: the outputs before anything happens

    def __init__(self, owner: "StandIn", component: Any, simulator: Any):
        self._owner, self._library, state = owner, owner.library, simulator._engine.state
        signals = {"__".join(map(str, path)): Value.cast(value)
                   for path, _, value in component.signature.flatten(component)}
        signals["rst"] = simulator._design.fragment.domains["sync"].rst
        slots = {name: state.slots[state.get_signal(signal)] for name, signal in signals.items()}
        self._inputs, at = [], 0
        for number, port in enumerate(self._library.inputs):
            self._inputs.append((slots[port.name], at, 4 * _words(port)))
            slots[port.name].add_waker(partial(self._changed, number))
            at += 4 * _words(port)
        self._in = bytearray(max(at, 1))
        self._in_pointer = (ctypes.c_char * len(self._in)).from_buffer(self._in)
        self._outputs, at = [], 0
        for port in self._library.outputs:
            self._outputs.append((slots[port.name], at, at + 4 * _words(port)))
            at += 4 * _words(port)
        self._out, self._last = ctypes.create_string_buffer(max(at, 1)), b""
        self._dirty, self._edge = set(range(len(self._inputs))), False
        clock = simulator._design.fragment.domains["sync"].clk
        state.slots[state.get_signal(clock)].add_waker(self._clocked)
        self._model = self._library.new(owner.mutant, owner.records)

    def trace(self) -> bytes:
        return self._library.trace(self._model)

    def close(self) -> None:
        self._library.free(self._model)

    def _changed(self, number: int, before: int, after: int) -> bool:
        self._dirty.add(number)
        self.runnable = True
        return True

    def _clocked(self, before: int, after: int) -> bool:
        if after:
            self._edge = self.runnable = True
        return True

    def run(self) -> None:
        """Settle, after a rising edge if there was one: then from the inputs just before it, as registers do."""
        for number in self._dirty:
            slot, at, size = self._inputs[number]
            self._in[at:at + size] = (slot.curr & (1 << 8 * size) - 1).to_bytes(size, "little")
        self._dirty.clear()
        if self._edge:
            self._owner.count()
        if self._library.step(self._model, self._edge, self._in_pointer, self._out):
            raise TestHangs("the model does not settle")
        self._edge = False
        out, last = self._out.raw, self._last
        if out != last:
            for slot, start, end in self._outputs:
                part = out[start:end]
                if part != last[start:end]:
                    slot.update(int.from_bytes(part, "little"))
            self._last = out


class NotTheTarget(AssertionError):
    """The test simulates something else."""


class StandIn:
    """The model of one component with mutants. mutant: which is in force. edges: cycles of the test so far; limit:
    cycles after which it hangs. learns: this is the test's first run, on the design: it is recorded, and a simulation
    without the target is refused, so that it takes no time."""

    def __init__(self, component: Any, model: Model):
        self.component = type(component)
        self.library = Library(model)
        self.mutant, self.edges, self.limit, self.records = 0, 0, 1 << 62, False
        self._key = parameters_of(component)
        self._placed: list[Any] = []
        self._boxes: list[Box] = []

    def start(self, mutant: int, limit: int = 1 << 62, *, learns: bool = False) -> None:
        """Before a test."""
        for box in self._boxes:
            box.close()
        self._boxes.clear()
        self.mutant, self.edges, self.limit, self.records = mutant, 0, limit, learns

    def traces(self) -> list[bytes]:
        """What was recorded since `start`, one for each instance."""
        return [box.trace() for box in self._boxes]

    def is_seen(self, mutant: int, traces: Sequence[bytes]) -> bool:
        """Whether a mutant answers otherwise than in one of `traces`."""
        return any(self.library.replay(mutant, trace) >= 0 for trace in traces)

    def count(self) -> None:
        """A cycle of one instance."""
        self.edges += 1
        if self.edges > self.limit:
            raise TestHangs(f"not done after {self.limit} cycles")

    def elaborate(self, component: Any) -> Module | None:
        """An empty module in place of the component; None when it is not the target."""
        if parameters_of(component) != self._key:
            return None
        self._placed.append(component)
        m = Module()
        m.d.sync += Signal().eq(1)   # there is a clock to wait for
        return m

    def simulator(self, original: Any, toplevel: Any, options: dict[str, Any]) -> Any:
        """Amaranth's simulator, with a process for each instance of the target in `toplevel`."""
        self._placed.clear()
        if self.records and isinstance(toplevel, self.component) and parameters_of(toplevel) != self._key:
            raise NotTheTarget   # at once: to elaborate it takes as long as a short test
        simulator = original(toplevel, **options)
        if self.records and not self._placed:
            raise NotTheTarget
        for component in self._placed:
            box = Box(self, component, simulator)
            self._boxes.append(box)
            simulator._engine._processes.add(box)
        return simulator


@contextlib.contextmanager
def installed(stand_in: StandIn) -> Iterator[None]:
    """Let `stand_in` take the component's place. Before the modules of the tests are imported."""
    original, elaborate = amaranth.sim.Simulator, stand_in.component.elaborate

    def simulator(toplevel: Any, **options: Any) -> Any:
        return stand_in.simulator(original, toplevel, options)

    def replaced(self: Any, platform: Any) -> Any:
        module = stand_in.elaborate(self)
        return elaborate(self, platform) if module is None else module

    amaranth.sim.Simulator, stand_in.component.elaborate = simulator, replaced
    try:
        yield
    finally:
        amaranth.sim.Simulator, stand_in.component.elaborate = original, elaborate
