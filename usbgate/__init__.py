"""
usbgate: one daemon owns the serial port, and everybody gets their own answer.
"""

__version__ = "0.1.0"
