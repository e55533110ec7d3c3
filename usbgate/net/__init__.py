"""
Shared Twisted plumbing: line receiver, send queue, broadcast, listeners.
"""
