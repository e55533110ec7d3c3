"""
Settings, and how files and options are read.
"""
