"""``python -m diffreward`` is the command ``diffreward``."""

import sys

from diffreward.cli import main

sys.exit(main())
