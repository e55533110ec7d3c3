"""
The Arduino library, as real firmware.
"""
