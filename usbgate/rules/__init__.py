"""
Rules: what usbgate does by itself when a condition becomes true (docs/rules.md).
"""
