"""
What a rule can do, one module each (docs/rules.md, "Actions").
"""
