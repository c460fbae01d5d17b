"""Entry points: flags -> build -> call -> write."""

import os
import sys

# In a log every update of a bar is another line; tqdm reads this when it is imported.
if sys.stderr is None or not sys.stderr.isatty():
    os.environ.setdefault("TQDM_MININTERVAL", "30")
