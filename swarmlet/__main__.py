"""``python -m swarmlet``."""

import sys

from swarmlet.cli import main

sys.exit(main())
