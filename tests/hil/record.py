"""Record the conformance suite on a simulated device behind its serial port: `make recordings`.

The record stands for a board's: it is made and replayed in the same way. It holds the hash of the register map, and so
has to be made again when the map changes. A board's is made at its bench, with `morphnic test --record`.
"""

import os
import tempfile
from pathlib import Path

from device_link import conformance
from sim.process import SimProcess

RECORDINGS = Path(__file__).parent / "recordings"


def main():
    """Record; an outcome other than pass and skip is an error."""
    RECORDINGS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="m-") as run_directory:
        os.environ["XDG_RUNTIME_DIR"] = run_directory
        with SimProcess("recorded", ["--seed", "1"]) as process:
            report = conformance.run(f"uart://{process.ready.pty}", timeout=10,
                                     record=RECORDINGS / "simulated-uart.jsonl")
    for result in report.results:
        print(f"{result.outcome:<5} {result.seconds:7.3f} s  {result.name}  {result.message}")
    if not report.passed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
