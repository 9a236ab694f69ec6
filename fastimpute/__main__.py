"""`python -m fastimpute` is the command line."""

from fastimpute.cli import main

if __name__ == "__main__":
    main()
