"""
The bench: what usbgate does a second, beside what the machine could do (docs/bench.md).
"""
