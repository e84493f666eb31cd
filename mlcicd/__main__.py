"""`python -m mlcicd`: the command line, as the actions call it (`python -I -m mlcicd <stage>`)."""

from mlcicd.cli import main

if __name__ == "__main__":
    main()
