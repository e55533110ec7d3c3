"""
Durable storing: journal, delivery, PostgreSQL.
"""
