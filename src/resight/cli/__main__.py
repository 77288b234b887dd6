"""Run the command line as `python -m resight.cli`."""

import sys

from resight.cli import main

sys.exit(main())
