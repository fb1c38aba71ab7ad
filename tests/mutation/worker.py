"""One process of a campaign: `python -m tests.mutation.worker FOLDER SECONDS NUMBERS`."""

import pickle
import sys
import time
from pathlib import Path

import pytest

from tests.mutation.runner import Runner
from tests.mutation.stand_in import StandIn, installed, model_of

#: A test that fails is not explained: that takes longer than many a test.
OPTIONS = ("-q", "-p", "no:cacheprovider", "--capture=sys", "--assert=plain", "--tb=no", "--show-capture=no")


def main() -> int:
    """Run the tests of the target on the mutants; what pytest ended with."""
    folder, seconds, numbers = sys.argv[1:]
    target = pickle.loads((Path(folder) / "target.pickle").read_bytes())
    stand_in = StandIn(target.make(), model_of((Path(folder) / "mutants.v").read_text()))
    runner = Runner(stand_in, [int(number) for number in numbers.split(",")], Path(folder),
                    time.monotonic() + float(seconds))
    with installed(stand_in):
        return int(pytest.main([*OPTIONS, *target.tests], plugins=[runner]))


if __name__ == "__main__":
    sys.exit(main())
