"""
The durable queue on disk, in front of the database.
"""
