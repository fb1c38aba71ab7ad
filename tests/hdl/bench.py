"""Benches and cases: what the regression runs, and how one run of it is written down.

A bench is a module `tests/hdl/<name>_cocotb.py`: cocotb tests, and a `BENCH` that says how the component under test is
built and which parameters it takes. A case is a bench with every parameter and the seed fixed; its text, such as
`skid width=8 idle=0.6 seed=3`, repeats it exactly (`pytest tests/hdl --case "..."`).
"""

import importlib
import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

Value = int | float | str
PARAMETERS = "MORPHNIC_PARAMETERS"  # environment variable that hands a case's parameters to the simulator
NEW_MODEL = 0.15  # how often a random case may draw a configuration that must first be compiled
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True)
class Bench:
    """One component under test.

    module: of the cocotb tests, `__name__` where it is defined. build: model parameters (as keywords) to component.
    model, traffic: values that each parameter may take, the default first; one of `model` takes a compilation, one
    of `traffic` only reaches the tests, through `parameters()`. also: further cases of the fixed matrix, as
    changes of the defaults. seeds: how many the fixed matrix runs of each case.
    """

    module: str
    build: Callable[..., Any]
    model: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    traffic: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    also: Sequence[Mapping[str, Value]] = ()
    seeds: int = 2

    def __post_init__(self) -> None:
        twice = set(self.model) & set(self.traffic)
        if twice:
            raise ValueError(f"parameters must be of model or of traffic, not both: {sorted(twice)!r}")
        for changes in self.also:
            self.defaults(changes)

    @property
    def name(self) -> str:
        """As written in a case: the module without `_cocotb`."""
        return self.module.rpartition(".")[2].removesuffix("_cocotb")

    @property
    def choices(self) -> dict[str, Sequence[Value]]:
        """Every parameter with the values it may take."""
        return {**self.model, **self.traffic}

    def defaults(self, changes: Mapping[str, Value] | None = None) -> dict[str, Value]:
        """The default parameters with `changes`."""
        unknown = set(changes or {}) - set(self.choices)
        if unknown:
            raise ValueError(f"{self.name} has no parameter {', '.join(sorted(unknown))}; it has: "
                             f"{', '.join(self.choices) or 'none'}")
        return {name: values[0] for name, values in self.choices.items()} | dict(changes or {})

    def matrix(self) -> "list[Case]":
        """The cases that every regression runs."""
        return [Case(self, self.defaults(changes), seed)
                for changes in ({}, *self.also) for seed in range(1, self.seeds + 1)]


@dataclass(frozen=True)
class Case:
    """A bench with all parameters and the seed of every random number fixed."""

    bench: Bench
    parameters: Mapping[str, Value]
    seed: int

    def __str__(self) -> str:
        words = [f"{name}={value}" for name, value in self.parameters.items()]
        return " ".join([self.bench.name, *words, f"seed={self.seed}"])

    @property
    def model_parameters(self) -> dict[str, Value]:
        """Those that make the component."""
        return {name: self.parameters[name] for name in self.bench.model}

    @property
    def command(self) -> str:
        """What repeats it, with a waveform."""
        return f'python -m pytest tests/hdl --wave --case "{self}"'


@cache
def benches() -> dict[str, Bench]:
    """Every bench of this folder by name."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*_cocotb.py")):
        bench = getattr(importlib.import_module(f"tests.hdl.{path.stem}"), "BENCH", None)
        if bench is not None:
            found[bench.name] = bench
    return found


def parse_case(text: str, known: Mapping[str, Bench] | None = None) -> Case:
    """The case that `text` names; parameters that it leaves out take their default, a seed that it leaves out is 1."""
    known = benches() if known is None else known
    name, *words = text.split() or [""]
    if name not in known:
        raise ValueError(f"there is no bench {name!r}; known: {', '.join(known)}")
    bench, changes, seed = known[name], {}, 1
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"a case must be written as bench name=value ..., not {text!r}")
        if key == "seed":
            seed = int(value)
        else:
            changes[key] = _value(bench, key, value)
    return Case(bench, bench.defaults(changes), seed)


def _value(bench: Bench, name: str, text: str) -> Value:
    """`text` in the type of the parameter's default."""
    default = bench.choices.get(name, ("",))[0]
    try:
        return type(default)(text)
    except ValueError as error:
        raise ValueError(f"{name} of {bench.name} must be of type {type(default).__name__}, not {text!r}") from error


def draw_case(rng: random.Random, known: Mapping[str, Bench], built: set[str]) -> Case:
    """A random case. `built` remembers the models that were drawn before; a new one is drawn now and then only."""
    bench = known[rng.choice(sorted(known))]
    model = {name: rng.choice(list(values)) for name, values in bench.model.items()}
    mine = sorted(text for text in built if json.loads(text)[0] == bench.name)
    if mine and rng.random() >= NEW_MODEL:
        model = json.loads(rng.choice(mine))[1]
    built.add(json.dumps([bench.name, model]))
    traffic = {name: rng.choice(list(values)) for name, values in bench.traffic.items()}
    return Case(bench, {**model, **traffic}, rng.randrange(1, LARGEST_SEED))


def parameters() -> dict[str, Any]:
    """Parameters of the case that this simulator runs; for the cocotb tests."""
    return dict(json.loads(os.environ[PARAMETERS]))
