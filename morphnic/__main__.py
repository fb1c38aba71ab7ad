"""`python -m morphnic`: the command line without an installed script."""

import sys

from morphnic.main import main

sys.exit(main())
