"""Runs the project's own tests on a netlist with mutants: a Verilated model stands in for a component.

`installed(stand_in)` replaces `elaborate` of the component's class. Wherever a test simulates an instance with the
parameters of the target, alone or inside something else, its logic is the model; everything around it stays Amaranth.
"""

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import amaranth.sim
from amaranth.hdl import Module, Signal, Value

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
    return type(component), tuple(sorted(mine.items(), key=lambda item: item[0])), repr(component.signature)


def _words(port: Port) -> int:
    return -(-port.width // 32)


def _bindings(ports: Sequence[Port]) -> dict[str, str]:
    """`box_ports.h`: each port to its words, in the order of the names."""
    members = {port.name: port.member for port in ports}
    moved = [port for port in ports if port.name not in ("clk", "rst", SELECT)]

    def moves(verb: str, direction: str, words: str) -> str:
        return " ".join(f"{verb}(t.{port.member}, {words}, {_words(port)});" for port in moved
                        if port.direction == direction)

    return {"box_ports.h": "\n".join([
        "#pragma once",
        f"#define BOX_SELECT {members[SELECT]}",
        f"#define BOX_CLOCK(t, level) {'t.clk = level;' if 'clk' in members else ''}",
        f"#define BOX_GATHER(t, in) {moves('gather', 'in', 'in')}",
        f"#define BOX_SCATTER(t, out) {moves('scatter', 'out', 'out')}", ""])}


def model_of(verilog: str) -> Model:
    """The Verilated netlist."""
    # The `vl_fatal` of Verilator's runtime ends the process: that of `box.cpp` comes first and is taken.
    harness = Harness("mutation", (SOURCE,), _bindings, version=Path(__file__).read_text(),
                      link=("-Wl,--allow-multiple-definition",))
    return build(verilog, harness, what="the mutants")


class Library:
    """The model as a shared library."""

    def __init__(self, model: Model):
        self._library = ctypes.CDLL(str(model.library))
        self._library.box_new.restype = ctypes.c_void_p
        self._library.box_free.argtypes = [ctypes.c_void_p]
        self._library.box_step.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p]
        moved = [port for port in model.ports if port.name not in ("clk", "rst", SELECT)]
        self.inputs = [port for port in moved if port.direction == "in"]
        self.outputs = [port for port in moved if port.direction == "out"]
        self.new, self.free, self.step = (self._library.box_new, self._library.box_free, self._library.box_step)


class Box:
    """One instance: processes that keep the component's outputs what the model says."""

    def __init__(self, owner: "StandIn", component: Any):
        self._owner, self._library = owner, owner.library
        signals = {"__".join(map(str, path)): Value.cast(value)
                   for path, _, value in component.signature.flatten(component)}
        self._inputs = [(signals[port.name], 4 * _words(port)) for port in self._library.inputs]
        at, self._outputs = 0, []
        for port in self._library.outputs:
            self._outputs.append((signals[port.name], at, at + 4 * _words(port)))
            at += 4 * _words(port)
        self._out, self._last = ctypes.create_string_buffer(max(at, 1)), b""
        self._model = self._library.new(owner.mutant)

    def close(self) -> None:
        self._library.free(self._model)

    def _step(self, ctx: Any, edge: bool, values: Sequence[int]) -> None:
        data = b"".join([(value & (1 << 8 * size) - 1).to_bytes(size, "little")
                         for value, (_, size) in zip(values, self._inputs, strict=True)])
        if self._library.step(self._model, edge, data, self._out):
            raise TestHangs("the model does not settle")
        out, last = self._out.raw, self._last
        if out == last:
            return
        for signal, start, end in self._outputs:
            part = out[start:end]
            if part != last[start:end]:
                ctx.set(signal, int.from_bytes(part, "little"))
        self._last = out

    async def on_change(self, ctx: Any) -> None:
        """Combinational paths; and the outputs before anything happens."""
        signals = [signal for signal, _ in self._inputs]
        self._step(ctx, False, [signal.init for signal in signals])
        async for values in ctx.changed(*signals):
            self._step(ctx, False, values)

    async def on_edge(self, ctx: Any) -> None:
        """Registers, from the inputs just before the edge."""
        async for _, _, *values in ctx.tick().sample(*[signal for signal, _ in self._inputs]):
            self._owner.edges += 1
            if self._owner.edges > self._owner.limit:
                raise TestHangs(f"not done after {self._owner.limit} cycles")
            self._step(ctx, True, values)


class StandIn:
    """The model of one component with mutants. mutant: which is in force. edges: cycles of the test so far; limit:
    cycles after which it hangs."""

    def __init__(self, component: Any, model: Model):
        self.component = type(component)
        self.library = Library(model)
        self.mutant, self.edges, self.limit = 0, 0, 1 << 62
        self._key = parameters_of(component)
        self._placed: list[Any] = []
        self._boxes: list[Box] = []

    def start(self, mutant: int, limit: int = 1 << 62) -> None:
        """Before a test."""
        for box in self._boxes:
            box.close()
        self._boxes.clear()
        self.mutant, self.edges, self.limit = mutant, 0, limit

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
        simulator = original(toplevel, **options)
        for component in self._placed:
            box = Box(self, component)
            self._boxes.append(box)
            simulator.add_process(box.on_edge)
            simulator.add_process(box.on_change)
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
