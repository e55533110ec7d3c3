"""
Where decisions become actions, and the interfaces that faces use.
"""
