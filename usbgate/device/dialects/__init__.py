"""
How devices spell things: one module a dialect, each with a class `Dialect` that provides `IDialect`.
"""
