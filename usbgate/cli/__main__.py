"""
`python -m usbgate.cli` is the `usbgate` command.
"""

from usbgate.cli.main import main

main()
