"""Whether a mutant can be told from the design at all: register correspondence over and-inverter graphs.

Two copies of the netlist, one with the mutation and one without, get the same inputs. Which register bits are always
equal in both is found from above: assume that all candidates were equal in the last `steps` cycles, drop those that can
differ in the next, until none is left to drop. Both copies start with equal registers, so what is left holds for ever;
if then no output can differ, none ever does: the mutant is equivalent. That is induction over `steps` cycles.

Equal logic of equal registers is the same node of one graph, so what the solver (Yices) gets is what the mutation
reaches. A memory is cut out: what goes in is an output of the netlist, what comes out an input. That is sound, since
memories with equal inputs have equal contents. The payload of a stream, and what a register bus is asked and answers,
need only be equal while `valid` or `ready` says that it is there; address and data of a memory's write port while it
writes. That is the contract of these ports, and what their tests look at.
"""

import math
import re
import resource
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.formal.prover import program
from tests.mutation.netlist import SELECT, yosys

CUT = """read_rtlil mutants.il
expose -evert t:$mem_v2
dffunmap
techmap
opt_clean
aigmap
opt_clean
write_aiger -ascii -symbols -zinit equivalence.aag
"""
FALSE, TRUE = 0, 1


class Undecided(Exception):
    """The solver did not answer in time."""


def spent() -> float:
    """Seconds of processor time so far, solvers included: what is decided must not depend on who else is at work."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Graph:
    """And-inverter graph in which equal nodes are one. A literal is twice a node's number, plus one when inverted."""

    def __init__(self) -> None:
        self._fans: list[tuple[int, int] | None] = [None]   # of node 0, which is FALSE
        self._nodes: dict[tuple[int, int], int] = {}

    def input(self) -> int:
        self._fans.append(None)
        return 2 * (len(self._fans) - 1)

    def both(self, a: int, b: int) -> int:
        """a and b."""
        if a > b:
            a, b = b, a
        if a == FALSE or a == b ^ 1:
            return FALSE
        if a in (TRUE, b):
            return b
        found = self._nodes.get((a, b))
        if found is None:
            self._fans.append((a, b))
            found = self._nodes[a, b] = 2 * (len(self._fans) - 1)
        return found

    def either(self, literals: Sequence[int]) -> int:
        """Disjunction."""
        result = TRUE
        for literal in literals:
            result = self.both(result, literal ^ 1)
        return result ^ 1

    def differ(self, a: int, b: int) -> int:
        """a xor b."""
        return FALSE if a == b else self.both(self.both(a, b) ^ 1, self.both(a ^ 1, b ^ 1) ^ 1)

    def solve(self, true: Sequence[int], ends: float) -> list[bool] | None:
        """Values of all nodes that make the literals `true`; None when there are none."""
        if FALSE in true:
            return None
        clauses, stack, seen = [[-1]], [literal >> 1 for literal in true], {0}
        while stack:
            node = stack.pop()
            fans = self._fans[node]
            if node in seen or fans is None:
                continue
            seen.add(node)
            x, (a, b) = node + 1, map(_variable, fans)
            clauses += [[-x, a], [-x, b], [x, -a, -b]]
            stack += [fans[0] >> 1, fans[1] >> 1]
        clauses += [[_variable(literal)] for literal in true]
        text = f"p cnf {len(self._fans)} {len(clauses)}\n" + "".join(
            " ".join(map(str, clause)) + " 0\n" for clause in clauses)
        return _yices(text, len(self._fans), ends)


def _variable(literal: int) -> int:
    """As in DIMACS: variables from 1, negative when inverted."""
    return -(literal >> 1) - 1 if literal & 1 else (literal >> 1) + 1


def _yices(text: str, count: int, ends: float) -> list[bool] | None:
    left = ends - spent()
    if left <= 0:
        raise Undecided

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(left), math.ceil(left) + 1))

    with tempfile.NamedTemporaryFile("w", suffix=".cnf") as file:
        file.write(text)
        file.flush()
        run = subprocess.run([program("yices-sat"), "-m", file.name], capture_output=True, text=True,
                             preexec_fn=limit)
    word, _, model = run.stdout.partition("\n")
    if run.returncode < 0 or word == "unknown":   # by the limit
        raise Undecided
    if word not in ("sat", "unsat"):
        raise RuntimeError(f"the solver says: {run.stdout[-500:]}{run.stderr[-500:]}")
    if word == "unsat":
        return None
    values = [False] * count
    for number in map(int, model.split()):
        if number > 0:
            values[number - 1] = True
    return values


class Aiger:
    """A netlist as read from an ASCII AIGER file: numbers of AIGER's literals."""

    def __init__(self, text: str):
        lines = text.splitlines()
        _, inputs, latches, outputs, gates = map(int, lines[0].split()[1:6])
        rows = [tuple(map(int, line.split())) for line in lines[1:1 + inputs + latches + outputs + gates]]
        self.inputs = [row[0] for row in rows[:inputs]]
        self.latches = [(row[0], row[1]) for row in rows[inputs:inputs + latches]]
        self.outputs = [row[0] for row in rows[inputs + latches:inputs + latches + outputs]]
        self.gates = rows[inputs + latches + outputs:]
        names = dict(line.split(" ", 1) for line in lines[len(rows) + 1:] if re.match(r"[io]\d+ ", line))
        self.input_names = [names.get(f"i{number}", "") for number in range(inputs)]
        self.output_names = [names[f"o{number}"] for number in range(outputs)]

    def evaluate(self, graph: Graph, inputs: Sequence[int], registers: Sequence[int]) -> dict[int, int]:
        """Literal of the graph for each variable of the netlist."""
        value = {0: FALSE} | {literal >> 1: given for literal, given in zip(self.inputs, inputs, strict=True)}
        value |= {literal >> 1: given for (literal, _), given in zip(self.latches, registers, strict=True)}
        both = graph.both
        for gate, a, b in self.gates:
            value[gate >> 1] = both(value[a >> 1] ^ a & 1, value[b >> 1] ^ b & 1)
        return value


class Copies:
    """One cycle of both copies in a graph, from given registers."""

    def __init__(self, netlist: Aiger, graph: Graph, mutant: int, registers: tuple[Sequence[int], Sequence[int]]):
        free = [graph.input() for _ in netlist.inputs]
        values = []
        for number, mine in zip((0, mutant), registers, strict=True):
            inputs = [TRUE if selected and number >> int(selected[1] or 0) & 1 else FALSE if selected else one
                      for one, selected in zip(free, map(_selects, netlist.input_names), strict=True)]
            values.append(netlist.evaluate(graph, inputs, mine))
        self.next = tuple([value[d >> 1] ^ d & 1 for _, d in netlist.latches] for value in values)
        self.outputs = tuple([value[one >> 1] ^ one & 1 for one in netlist.outputs] for value in values)


def _selects(name: str) -> re.Match[str] | None:
    return re.fullmatch(rf"{SELECT}(?:\[(\d+)\])?", name)


class Equivalence:
    """All mutants of a netlist (`mutants.il` in `folder`)."""

    def __init__(self, folder: Path):
        yosys(CUT, folder)
        self._netlist = Aiger((folder / "equivalence.aag").read_text())
        self._cares = [self._care(name) for name in self._netlist.output_names]

    def _care(self, name: str) -> list[int]:
        """Numbers of the outputs one of which must be high for that output to matter; none: it always matters."""
        numbers: dict[str, list[int]] = {}
        for number, other in enumerate(self._netlist.output_names):
            numbers.setdefault(re.sub(r"\[\d+\]$", "", other), []).append(number)
        bare = re.sub(r"\[\d+\]$", "", name)
        stem, _, last = bare.rpartition("__")
        if last in ("payload", "address", "write", "w_data", "w_mask"):
            return numbers.get(f"{stem}__valid", [])
        if last in ("r_data", "error"):
            return numbers.get(f"{stem}__ready", [])
        if bare.endswith((".WR_ADDR", ".WR_DATA")):
            return numbers[bare.rpartition(".")[0] + ".WR_EN"]
        return []

    def apart(self, mutant: int, cycles: int, seconds: float) -> bool | None:
        """Whether an output can differ in the first `cycles` after power-up; None when that is not decided in time."""
        try:
            return not self._starts_equal(mutant, cycles, spent() + seconds)
        except Undecided:
            return None

    def shown(self, mutant: int, steps: int, seconds: float) -> bool:
        """Whether the mutant is shown equivalent within `seconds`, by induction over `steps` cycles."""
        ends = spent() + seconds
        equal = set(range(len(self._netlist.latches)))
        try:
            while True:
                graph, frames = self._unroll(mutant, equal, steps)
                # What was equal so far: the candidates, and the outputs.
                given = [graph.differ(frame.next[0][bit], frame.next[1][bit]) ^ 1
                         for frame in frames[:-1] for bit in equal]
                given += [wrong ^ 1 for frame in frames[:-1] for wrong in self._wrong(graph, frame)]
                given = [literal for literal in given if literal != TRUE]
                last = frames[-1]
                if graph.solve([*given, graph.either(self._wrong(graph, last))], ends) is not None:
                    return False
                doubts = {bit: graph.differ(last.next[0][bit], last.next[1][bit]) for bit in equal}
                model = graph.solve([*given, graph.either([one for one in doubts.values() if one != FALSE])], ends)
                if model is None:
                    return self._starts_equal(mutant, steps, ends)
                equal -= {bit for bit, literal in doubts.items() if model[literal >> 1] ^ literal & 1}
        except Undecided:
            return False

    def _unroll(self, mutant: int, equal: set[int], steps: int) -> tuple[Graph, list[Copies]]:
        """`steps` cycles from any registers that are equal in both copies as far as they are in `equal`."""
        graph = Graph()
        mine = [graph.input() for _ in self._netlist.latches]
        its = [one if bit in equal else graph.input() for bit, one in enumerate(mine)]
        frames, registers = [], (mine, its)
        for _ in range(steps):
            frames.append(Copies(self._netlist, graph, mutant, registers))
            # Equal by assumption: the same literal, so that the next cycle's logic is shared too.
            registers = (frames[-1].next[0],
                         [a if bit in equal else b for bit, (a, b) in enumerate(zip(*frames[-1].next, strict=True))])
        return graph, frames

    def _wrong(self, graph: Graph, frame: Copies) -> list[int]:
        """For each output that matters and is not the same: that it differs."""
        mine, its = frame.outputs
        return [graph.both(graph.differ(a, b), graph.either([mine[one] for one in care]) if care else TRUE)
                for a, b, care in zip(mine, its, self._cares, strict=True) if a != b]

    def _starts_equal(self, mutant: int, steps: int, ends: float) -> bool:
        """The first `steps` cycles after power-up, which the induction starts from."""
        graph, registers = Graph(), ([FALSE] * len(self._netlist.latches),) * 2
        wrong = []
        for _ in range(steps):
            frame = Copies(self._netlist, graph, mutant, registers)
            wrong += self._wrong(graph, frame)
            registers = frame.next
        return graph.solve([graph.either(wrong)], ends) is None
