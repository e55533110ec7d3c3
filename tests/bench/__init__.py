"""
A benchmark: compares what usbgate does per second with what the machine can do (docs/bench.md).
"""
