"""
Where readings are stored for good: one module a kind of store.
"""
