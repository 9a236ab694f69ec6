import sys

from fastimpute.benchmark.gpu import main

sys.exit(main())
