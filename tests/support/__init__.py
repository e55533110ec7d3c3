"""
Parts shared by several test modules.
"""
