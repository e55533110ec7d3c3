"""
Hypothesis without its limits of time: on a busy machine, any example may take long, and so may its drawing.
"""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

__all__ = ["given"]

settings.register_profile("usbgate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("usbgate")
