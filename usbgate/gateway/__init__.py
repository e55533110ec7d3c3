"""
Carries decisions out; `interfaces` is what the server and the web use.
"""
