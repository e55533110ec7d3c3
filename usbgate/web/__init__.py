"""
The HTTP face: an API for programs and for the page, and the page's files.
"""
