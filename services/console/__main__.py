"""`python -m services.console` is the `cutover` command."""

from services.console.application import main

if __name__ == "__main__":
    main()
