"""
What surrounds the services: state directory, signals, log file, clock.
"""
