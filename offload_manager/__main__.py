"""`python -m offload_manager`."""

import sys

from offload_manager.main import main

sys.exit(main())
