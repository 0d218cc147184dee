"""python -m storygen: see storygen.cli."""

import sys

from storygen.cli import main

sys.exit(main())
