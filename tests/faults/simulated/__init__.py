"""
The parts of a simulated world (see `tests.faults.simulation`).
"""
