"""
The program `usbgate`, also as `python -m usbgate.cli`.
"""

import sys


def run() -> None:
    """
    Run the command. Ctrl-C ends it without a word, also while it is still being imported.
    """
    try:
        from usbgate.cli.main import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)  # `INTERRUPTED` of `usbgate.cli.group`, which may not be imported yet


if __name__ == "__main__":
    run()
