"""
Readings and requests in PostgreSQL (protocol §5).
"""
