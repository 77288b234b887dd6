"""`python -m resight.cli`, for where the script is not on the path."""

import sys

from resight.cli import main

sys.exit(main())
