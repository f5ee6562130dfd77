"""`python -m probate`: the `probate` command."""

from probate.cli import main

if __name__ == "__main__":
    main()
