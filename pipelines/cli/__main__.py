"""`python -m pipelines.cli` is `lrm`."""

import sys

from pipelines.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
