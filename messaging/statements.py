"""The statements that are run for many inboxes at once: for each batch of receipts, and for a herd that comes back.

They are SQL of our own because they run beside the event loop and hold its interpreter: the ORM spends several times
the processor time on them, most of it on single parameters. So all rows come as one parameter, as JSON. Names are
taken from the models, types from the tables. `unread` alone calls this, mostly inside its transactions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import orjson
import psycopg
from django.db import connection, models

from messaging.models import Receipt, Topic

_to_json = msgspec.json.Encoder(enc_hook=datetime.isoformat).encode  # of datetime's subclasses msgspec knows nothing


class LockedTopic(msgspec.Struct, gc=False):
    pk: int
    floor: str


class NewReceipt(msgspec.Struct, gc=False):
    """A receipt to be written; its fields are the columns of the model's table."""

    inbox_id: int
    topic_id: int
    message_id: str
    order: str
    created_at: datetime
    known_at: datetime
    came_late: bool
    read_at: datetime | None


class NewSurvey(NamedTuple):
    """A topic as upstream's list shows it; its fields are the model's."""

    id: int
    upstream_count: int
    upstream_last_at: datetime | None
    floor: str


class NamedReceipt(NamedTuple):
    """A receipt to be marked as read; its fields are the model's."""

    inbox_id: int
    topic_id: int
    message_id: str
    read_at: datetime


def lock_topics(keys: Collection[tuple[int, str]]) -> dict[tuple[int, str], LockedTopic]:
    """The topics with these (inbox, key) that exist, locked one after the other as their primary keys count up."""
    lock = connection.features.has_select_for_update
    return _topics(keys, connection.ops.for_update_sql(no_key=True, of=(_table(Topic),)) if lock else "")


def floors(keys: Collection[tuple[int, str]]) -> dict[tuple[int, str], str]:
    """The floors of the topics with these (inbox, key) that exist."""
    return {key: topic.floor for key, topic in _topics(keys, "").items()}


def _topics(keys: Collection[tuple[int, str]], lock: str) -> dict[tuple[int, str], LockedTopic]:
    topic, wanted = _table(Topic), _names(Topic, "inbox", "key")
    pk, inbox, key, floor = _quoted(_names(Topic, "id", "inbox", "key", "floor"))
    found = _run(
        f"SELECT {topic}.{inbox}, {topic}.{key}, {topic}.{pk}, {topic}.{floor} FROM {topic}"
        f" JOIN {_given(Topic, wanted)} ON {topic}.{inbox} = given.{inbox} AND {topic}.{key} = given.{key}"
        f" ORDER BY {topic}.{pk} {lock}",
        wanted,
        keys,
    )
    return {(inbox_pk, text): LockedTopic(topic_pk, place) for inbox_pk, text, topic_pk, place in found}


def update_surveys(surveys: Sequence[NewSurvey]) -> None:
    """Write what upstream's list showed of locked topics; a row in which nothing is new is left alone."""
    names = _names(Topic, *NewSurvey._fields)
    topic, (pk, *columns) = _table(Topic), _quoted(names)
    same = [f"{topic}.{column} = given.{column}" for column in columns]
    last_at = columns[NewSurvey._fields.index("upstream_last_at") - 1]
    same.append(f"({topic}.{last_at} IS NULL) = (given.{last_at} IS NULL)")
    even = " AND ".join(f"COALESCE({each}, true)" for each in same)
    _run(
        f"UPDATE {topic} SET {', '.join(f'{column} = given.{column}' for column in columns)}"
        f" FROM {_given(Topic, names)} WHERE {topic}.{pk} = given.{pk} AND NOT ({even})",
        names,
        surveys,
    )


def insert_receipts(receipts: Sequence[NewReceipt]) -> None:
    """Write receipts, in this order; one whose message has a receipt already changes nothing.

    But where both came late, the earlier of the moments counts: of two processes one is a little slower, and who was
    handed it by the quicker one has had it.
    """
    names = _names(Receipt, *NewReceipt.__struct_fields__)
    columns = ", ".join(_quoted(names))
    receipt, (inbox, message_id) = _table(Receipt), _quoted(_names(Receipt, "inbox", "message_id"))
    known_at, came_late = _quoted(_names(Receipt, "known_at", "came_late"))
    is_earlier = f"excluded.{known_at} < {receipt}.{known_at}"
    _run(
        f"INSERT INTO {receipt} ({columns}) SELECT {columns} FROM {_given(Receipt, names)}"
        " WHERE true"  # without it SQLite takes the ON for a join's
        f" ON CONFLICT ({inbox}, {message_id}) DO UPDATE SET {known_at} = excluded.{known_at}"
        f" WHERE {receipt}.{came_late} AND excluded.{came_late} AND {is_earlier}",
        names,
        receipts,
    )


def mark_read(reads: Collection[NamedReceipt]) -> None:
    """Set `read_at` of the receipts named, where it is not set."""
    names = _names(Receipt, *NamedReceipt._fields)
    receipt, (inbox, topic, message_id, read_at) = _table(Receipt), _quoted(names)
    _run(
        f"UPDATE {receipt} SET {read_at} = given.{read_at} FROM {_given(Receipt, names)}"
        f" WHERE {receipt}.{inbox} = given.{inbox} AND {receipt}.{message_id} = given.{message_id}"
        f" AND {receipt}.{topic} = given.{topic} AND {receipt}.{read_at} IS NULL",
        names,
        reads,
    )


def known_by(asked: Sequence[tuple[int, int, str, datetime, datetime]]) -> list[tuple[int, str]]:
    """(number, message) of those (number, inbox, message, moment, moment) asked about that had a receipt at the moment:
    at the first one, or, where the message came late, at the second.

    Whoever asks numbers the questions.
    """
    names = _names(Receipt, "id", "inbox", "message_id", "known_at", "read_at")
    receipt, (number, inbox, message_id, known_at, second) = _table(Receipt), _quoted(names)
    (came_late,) = _quoted(_names(Receipt, "came_late"))
    return _run(
        f"SELECT given.{number}, {receipt}.{message_id} FROM {receipt} JOIN {_given(Receipt, names)}"
        f" ON {receipt}.{inbox} = given.{inbox} AND {receipt}.{message_id} = given.{message_id}"
        f" WHERE {receipt}.{known_at} <= CASE WHEN {receipt}.{came_late} THEN given.{second} ELSE given.{known_at} END",
        names,
        asked,
    )


def known_since(asked: Sequence[tuple[int, int, datetime]]) -> list[tuple[int, str, str, str]]:
    """(number, topic's name, message, order) of the receipts made in an inbox after a moment, for each of those asked.

    Whoever asks numbers the questions: (number, inbox, moment).
    """
    names = _names(Receipt, "id", "inbox", "known_at")
    receipt, topic, (number, inbox, known_at) = _table(Receipt), _table(Topic), _quoted(names)
    message_id, order, receipts_topic = _quoted(_names(Receipt, "message_id", "order", "topic"))
    pk, scope = _quoted(_names(Topic, "id", "scope"))
    return _run(
        f"SELECT given.{number}, {topic}.{scope}, {receipt}.{message_id}, {receipt}.{order} FROM {receipt}"
        f" JOIN {_given(Receipt, names)} ON {receipt}.{inbox} = given.{inbox}"
        f" JOIN {topic} ON {topic}.{pk} = {receipt}.{receipts_topic}"
        f" WHERE {receipt}.{known_at} > given.{known_at}",
        names,
        asked,
    )


def unread_of(topics: Sequence[tuple[int, datetime]]) -> list[tuple[int, int, str, str]]:
    """(topic, receipt, message, order) of what is unread in these topics and was known at a moment: (topic, moment)."""
    names = _names(Receipt, "topic", "known_at")
    receipt, (topic, known_at) = _table(Receipt), _quoted(names)
    pk, message_id, order, read_at = _quoted(_names(Receipt, "id", "message_id", "order", "read_at"))
    return _run(
        f"SELECT {receipt}.{topic}, {receipt}.{pk}, {receipt}.{message_id}, {receipt}.{order} FROM {receipt}"
        f" JOIN {_given(Receipt, names)} ON {receipt}.{topic} = given.{topic}"
        f" WHERE {receipt}.{known_at} <= given.{known_at} AND {receipt}.{read_at} IS NULL",
        names,
        topics,
    )


def count_unread(inboxes: Collection[int]) -> list[tuple[int, str, int]]:
    """(inbox, topic's name, number) of the receipts of these inboxes that are unread; no row where there are none."""
    receipt, topic, asked = _table(Receipt), _table(Topic), _names(Receipt, "inbox")
    inbox, receipts_topic, read_at = _quoted(_names(Receipt, "inbox", "topic", "read_at"))
    pk, scope = _quoted(_names(Topic, "id", "scope"))
    # Counted by number, and named afterwards: there may be thousands to count for every name.
    return _run(
        f"SELECT counted.{inbox}, {topic}.{scope}, counted.number"
        f" FROM (SELECT {receipt}.{inbox}, {receipt}.{receipts_topic}, COUNT(*) AS number FROM {receipt}"
        f" JOIN {_given(Receipt, asked)} ON {receipt}.{inbox} = given.{inbox}"
        f" WHERE {receipt}.{read_at} IS NULL GROUP BY {receipt}.{inbox}, {receipt}.{receipts_topic}) AS counted"
        f" JOIN {topic} ON {topic}.{pk} = counted.{receipts_topic}",
        asked,
        [(pk,) for pk in set(inboxes)],
    )


def _run(
    statement: str, names: Sequence[str], rows: Collection[tuple[object, ...]] | Sequence[NewReceipt]
) -> list[Any]:
    """What a statement answers whose only parameter are the `_given` rows; without rows it need not be asked."""
    if not rows:
        return []
    given = [row if isinstance(row, NewReceipt) else dict(zip(names, row, strict=True)) for row in rows]
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            cursor.execute(statement, [_json_for_sqlite(given)])
            return cursor.fetchall() if cursor.description else []
        with connection.wrap_database_errors:  # Django's own cursor would write the rows into the statement first
            sent = psycopg.Cursor(connection.connection).execute(statement, [_to_json(given).decode()])
            return sent.fetchall() if sent.description else []


def _json_for_sqlite(rows: Iterable[dict[str, object] | NewReceipt]) -> str:
    """SQLite keeps a moment as text, in Django's form."""
    plain = [msgspec.structs.asdict(row) if isinstance(row, NewReceipt) else row for row in rows]
    adapt = connection.ops.adapt_datetimefield_value
    return orjson.dumps(plain, default=adapt, option=orjson.OPT_PASSTHROUGH_DATETIME).decode()


def _given(model: type[models.Model], names: Sequence[str]) -> str:
    """SQL for the rows that come as JSON, as a table `given` that has these columns of the model's table.

    PostgreSQL reads them as rows of that table, with its types: what doesn't fit is refused, not cut.
    """
    if connection.vendor == "postgresql":
        return f"json_populate_recordset(NULL::{_table(model)}, %s) AS given"
    columns = zip(names, _quoted(names), strict=True)
    values = ", ".join(f"json_extract(value, '$.{name}') AS {column}" for name, column in columns)
    return f"(SELECT {values} FROM json_each(%s)) AS given"


def _table(model: type[models.Model]) -> str:
    return connection.ops.quote_name(model._meta.db_table)


def _names(model: type[models.Model], *fields: str) -> list[str]:
    """The columns of these fields."""
    columns = {name: str(field.column) for field in model._meta.concrete_fields for name in (field.name, field.attname)}
    return [columns[field] for field in fields]


def _quoted(names: Sequence[str]) -> list[str]:
    return [connection.ops.quote_name(name) for name in names]
