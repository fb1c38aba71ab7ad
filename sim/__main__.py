"""`python -m sim`: build the default device, which tests and demo use, with both hands free.

It would be built at its first use anyway; a test that does it competes with the tests beside it for the
processor, and with its own time-out.
"""

from __future__ import annotations

import sys

from gateware.config import DeviceConfig
from morphnic.errors import MorphnicError

from .harness import device_model


def main() -> int:
    """Build what is not in the cache; expected errors are one line and an exit code."""
    try:
        device_model(DeviceConfig())
    except MorphnicError as error:
        print(f"morphnic: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
