"""
The formats of devices' lines: one module a dialect, each with a class `Dialect` that provides `IDialect`.
"""
