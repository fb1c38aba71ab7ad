"""Does a test of a target simulate it? `python -m tests.mutation.simulated TARGET` ends with 0 at the first that does.

The parameters of a target are those of its tests, written twice: a campaign whose tests have others has nothing to run.
Nothing is simulated here: a test ends where it makes its simulator.
"""

import sys
from itertools import chain
from typing import Any

import pytest

from tests.mutation.blocks import BLOCKS, Target
from tests.mutation.stand_in import NotTheTarget, installed, parameters_of


class Seeker:
    """As a `StandIn`, but for a model; `found`: the target was elaborated for a simulator."""

    def __init__(self, component: Any):
        self.component, self.found = type(component), False
        self._key = parameters_of(component)

    def elaborate(self, component: Any) -> None:
        """Look at an instance, and leave it as it is."""
        self.found |= parameters_of(component) == self._key

    def simulator(self, original: Any, toplevel: Any, options: dict[str, Any]) -> Any:
        """Elaborate what a test would simulate, and end the test."""
        if isinstance(toplevel, self.component):
            self.elaborate(toplevel)
        else:
            original(toplevel, **options)
        raise NotTheTarget

    @pytest.hookimpl
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        """Stop at the first that is found."""
        if self.found:
            item.session.shouldstop = "found"


def is_simulated(target: Target) -> bool:
    """Whether a test of `target` simulates it with its parameters; in a fresh process, before tests are imported."""
    seeker = Seeker(target.make())
    with installed(seeker):
        pytest.main(["-q", "-p", "no:cacheprovider", "--tb=no", "--show-capture=no", *target.tests], plugins=[seeker])
    return seeker.found


if __name__ == "__main__":
    (name,) = sys.argv[1:]
    sys.exit(not is_simulated(next(one for one in chain.from_iterable(BLOCKS.values()) if one.name == name)))
