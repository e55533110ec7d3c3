"""
Faults that a gateway in a cupboard meets, and what must hold in spite of them.
"""
