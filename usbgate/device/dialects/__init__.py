"""
The formats of devices' lines: one module per dialect, each with a class `Dialect` that provides `IDialect`.
"""
