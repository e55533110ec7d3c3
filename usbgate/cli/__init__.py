"""
The `usbgate` command.
"""
