"""
A simulated home, for trying things out without a board.
"""
