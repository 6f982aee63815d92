"""Write a small source in Objaverse's layout: `python -m pipelines.demo_source DIR`."""

import sys

from pipelines.demo.demo_mirror import main

if __name__ == "__main__":
    sys.exit(main())
