"""`python -m mimlab`: the command line."""

from mimlab.cli import main

if __name__ == "__main__":
    main()
