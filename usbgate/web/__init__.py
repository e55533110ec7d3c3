"""
The HTTP front end: an API for programs and for the page, and the page's files.
"""
