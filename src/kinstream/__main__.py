"""`python -m kinstream` is the command `kinstream`."""

import sys

from kinstream.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
