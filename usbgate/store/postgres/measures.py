"""
The view `measures`, which the original web site reads (protocol §5).

It may stand outside of usbgate's schema, in a place that belongs to somebody else. So an existing relation is never
changed, and if the view cannot be created, the rest works without it.
"""

from __future__ import annotations

import psycopg2
from twisted.logger import Logger

from usbgate.store.postgres.names import Schema, quoted
from usbgate.store.postgres.session import DatabaseSession, one_line

# The expression must be exactly that of the index `reading_by_id`.
_CREATE = """create view {view} as
    select case when field = 'VALUE' then sensor else sensor || '.' || field end as id, at as "timestamp", value
    from usbgate.reading
    where value is not null;
    comment on view {view} is 'Readings that are numbers, for web sites.';
    comment on column {view}.id is 'The id of the sensor for the field VALUE, else SENSOR.FIELD, such as 22.TEMP';
    comment on column {view}."timestamp" is 'When it was read';
    comment on column {view}.value is 'The number'"""

# What has the name, and whether it is a view of our readings.
_FIND = """
    select case relkind when 'v' then 'a view' when 'm' then 'a view' when 'S' then 'a sequence' else 'a table' end,
        exists (
            select from pg_rewrite join pg_depend on classid = 'pg_rewrite'::regclass and objid = pg_rewrite.oid
            where ev_class = pg_class.oid and refclassid = 'pg_class'::regclass and refobjid = (
                select r.oid from pg_class as r join pg_namespace as s on s.oid = r.relnamespace
                where s.nspname = %s and r.relname = 'reading'
            )
        )
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace where nspname = %s and relname = %s
"""

REMEDY = 'choose another place for the view: measures = "SCHEMA.NAME", or "none"'


class Measures:
    """
    Creates the view where it is missing.
    """

    log = Logger()

    def __init__(self, schema: Schema, place: tuple[str, str] | None) -> None:
        """
        Args:
            schema: The schema of the tables.
            place: Schema and name of the view; None for no view.
        """
        self._schema = schema
        self._place = place
        self._logged = False  # whether it was logged that the view is left out

    async def ensure(self, session: DatabaseSession, limit: float) -> None:
        """
        Create the view unless there is something of its name; log once if it is left out.

        Args:
            session: A session, outside of a transaction.
            limit: Timeout of a statement, in seconds.

        Raises:
            SinkUnavailable: A statement timed out.
            psycopg2.Error: The connection failed.
        """
        if self._place is None:
            return
        find = _FIND, (self._schema.name, *self._place)
        found = await session.run(*find, limit)
        if not found:
            create = self._schema.sql(_CREATE.format(view=quoted(*self._place)))
            try:
                await session.run(create, None, limit)
                return
            except psycopg2.Error as error:
                # Class 42: no right to do that, or a type has the name; 3F: there is no such schema; 23, of a catalog:
                # another daemon has created it at the same moment.
                if (error.pgcode or "")[:2] not in ("42", "3F", "23"):
                    raise
                reason = one_line(error)
            found = await session.run(*find, limit)  # another daemon may have created it
        if found:
            ((kind, ours),) = found
            if ours:
                return
            reason = f"{kind} that is not usbgate's has this name"
        if not self._logged:
            self._logged = True
            self.log.warn(
                "the view {view} is left out: {reason}; readings are stored in {reading}; " + REMEDY,
                view=".".join(self._place),
                reason=reason,
                reading=f"{self._schema.name}.reading",
            )
