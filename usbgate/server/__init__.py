"""
The TCP line server (protocol §3).
"""
