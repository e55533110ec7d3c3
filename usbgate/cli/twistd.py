"""
twistd, run by this interpreter, since its script need not be on the PATH: `python -P -m usbgate.cli.twistd`.
"""

import sys

from twisted.scripts.twistd import run

if __name__ == "__main__":
    sys.argv[0] = "twistd"  # the name that it prints
    run()
