"""
Who may do what: roles, tokens, and what each word and call requires.
"""
