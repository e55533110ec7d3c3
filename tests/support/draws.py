"""
Hypothesis without its deadline for each example: on a busy machine, any example may take long.
"""

from __future__ import annotations

from hypothesis import given, settings

__all__ = ["given"]

settings.register_profile("usbgate", deadline=None)
settings.load_profile("usbgate")
