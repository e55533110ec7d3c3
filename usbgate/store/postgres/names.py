"""
Names in the database: the schema of usbgate's tables, and names that are quoted.
"""

from __future__ import annotations

import re

DEFAULT_SCHEMA = "usbgate"


class Schema:
    """
    The schema that holds usbgate's tables.

    Every statement names it, since `search_path` belongs to the session, the role or the database, and a connection
    pooler may pass a session on. The source is written for the default schema.

    Attributes:
        name: Its name.
        quoted: Its name as it stands in a statement.
    """

    def __init__(self, name: str = DEFAULT_SCHEMA) -> None:
        """
        Use the schema of this name, which has no `%`: psycopg2 would take it for a parameter.
        """
        self.name = name
        self.quoted = quoted(name)

    def sql(self, text: str) -> str:
        """
        Return SQL that was written for the default schema, with this one in its place.
        """
        return re.sub(rf"\b{DEFAULT_SCHEMA}\.", lambda _: self.quoted + ".", text)


def quoted(*names: str) -> str:
    """
    Return a name, perhaps with others in front that qualify it, as it stands in a statement.
    """
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)
