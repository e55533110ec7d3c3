"""
One serial device: endpoint, USB, link, dialects.
"""
