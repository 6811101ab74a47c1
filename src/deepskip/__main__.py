"""`python -m deepskip`: the command line."""

import sys

from deepskip.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
