"""`python -m fastimpute.benchmark.gpu`: as `bench/gpu.py`, without building anything."""

import sys

from fastimpute.benchmark.gpu import main

if __name__ == "__main__":
    sys.exit(main())
