"""The command that writes the demo's small source: `python -m pipelines.demo_source DIR`."""

import sys

from pipelines.demo.demo_mirror import main

if __name__ == "__main__":
    sys.exit(main())
