"""The statements that are run for many inboxes at once: for each batch of receipts, and for a herd that comes back.

They are SQL of our own because they run beside the event loop and hold its interpreter: the ORM spends several times
the processor time on them, most of it on single parameters. So all rows come as one parameter, as JSON. Names are
taken from the models, types from the tables. `unread` alone calls this, mostly inside its transactions; but `among` is
for whoever asks the ORM about many at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

import msgspec
import orjson
import psycopg
from django.db import connection, models
from django.db.models.expressions import RawSQL

from messaging.models import Receipt, Topic

as_json = msgspec.json.Encoder(enc_hook=datetime.isoformat).encode  # of datetime's subclasses msgspec knows nothing


class LockedTopic(msgspec.Struct, gc=False):
    pk: int
    floor: str


class NewReceipt(msgspec.Struct, gc=False):
    """A receipt to be written; `key` is its topic's, the other fields are the model's."""

    inbox_id: int
    key: str
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
        _objects(wanted, keys),
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
        _objects(names, surveys),
    )


def insert_receipts(receipts: Sequence[NewReceipt]) -> None:
    """Write the receipts that stand behind their topics' floors; one whose message has a receipt changes nothing.

    But where both came late, the earlier of the moments counts: of two processes one is a little slower, and who was
    handed it by the quicker one has had it. The topics are there, and locked.
    """
    if connection.vendor == "postgresql":
        if receipts:
            insert_receipts_at_once(as_json(receipts))
    else:
        _run(f"WITH {_topics_of_receipts()} {_insertion()}", receipts)


def insert_receipts_at_once(receipts: bytes) -> int:
    """As insert_receipts, of a JSON list, in one statement with the locking (PostgreSQL): how many topics are there.

    Receipts of other topics are left out. Each statement takes the thread that writes some tenths of a millisecond,
    whatever it does, and this is the usual batch.
    """
    return int(_send(_insertion_at_once(), receipts)[0][0])


@cache
def _insertion_at_once() -> str:
    lock = connection.ops.for_update_sql(no_key=True, of=(_table(Topic),))
    return f"WITH {_topics_of_receipts(lock)}, written AS ({_insertion()}) SELECT COUNT(*) FROM found"


def _topics_of_receipts(lock: str = "") -> str:
    """SQL for the rows that come as `given`, and their topics as `found`."""
    fields = {name: Topic if name == "key" else Receipt for name in NewReceipt.__struct_fields__}
    topic, (pk, inbox, key, floor) = _table(Topic), _quoted(_names(Topic, "id", "inbox", "key", "floor"))
    return (
        f"given AS (SELECT * FROM {_given_of(fields)}), found AS (SELECT {pk}, {inbox}, {key}, {floor} FROM {topic}"
        f" WHERE ({inbox}, {key}) IN (SELECT {inbox}, {key} FROM given) ORDER BY {pk} {lock})"
    )


def _insertion() -> str:
    """SQL that writes the `given` receipts of the `found` topics, in one order: so no deadlocks."""
    names = [name for name in NewReceipt.__struct_fields__ if name != "key"]
    columns = _quoted(_names(Receipt, *names))
    receipt, (inbox, topic, message_id) = _table(Receipt), _quoted(_names(Receipt, "inbox", "topic", "message_id"))
    order, known_at, came_late = _quoted(_names(Receipt, "order", "known_at", "came_late"))
    pk, its_inbox, key, floor = _quoted(_names(Topic, "id", "inbox", "key", "floor"))
    by_bytes = 'COLLATE "C"' if connection.vendor == "postgresql" else "COLLATE BINARY"
    return (
        f"INSERT INTO {receipt} ({', '.join(columns)}, {topic})"
        f" SELECT {', '.join(f'given.{column}' for column in columns)}, found.{pk} FROM given"
        f" JOIN found ON found.{its_inbox} = given.{inbox} AND found.{key} = given.{key}"
        f" WHERE given.{order} > found.{floor} {by_bytes} ORDER BY given.{inbox}, given.{message_id} {by_bytes}"
        f" ON CONFLICT ({inbox}, {message_id}) DO UPDATE SET {known_at} = excluded.{known_at}"
        f" WHERE {receipt}.{came_late} AND excluded.{came_late} AND excluded.{known_at} < {receipt}.{known_at}"
    )


def mark_read(reads: Collection[NamedReceipt]) -> None:
    """Set `read_at` of the receipts named, where it is not set."""
    names = _names(Receipt, *NamedReceipt._fields)
    receipt, (inbox, topic, message_id, read_at) = _table(Receipt), _quoted(names)
    _run(
        f"UPDATE {receipt} SET {read_at} = given.{read_at} FROM {_given(Receipt, names)}"
        f" WHERE {receipt}.{inbox} = given.{inbox} AND {receipt}.{message_id} = given.{message_id}"
        f" AND {receipt}.{topic} = given.{topic} AND {receipt}.{read_at} IS NULL",
        _objects(names, reads),
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
        _objects(names, asked),
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
        _objects(names, asked),
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
        _objects(names, topics),
    )


def count_unread(inboxes: Collection[int]) -> list[tuple[int, str, int]]:
    """(inbox, topic's name, number) of the receipts of these inboxes that are unread; no row where there are none."""
    receipt, topic = _table(Receipt), _table(Topic)
    inbox, receipts_topic, read_at = _quoted(_names(Receipt, "inbox", "topic", "read_at"))
    pk, scope = _quoted(_names(Topic, "id", "scope"))
    # Counted by number, and named afterwards: there may be thousands to count for every name.
    return _run(
        f"SELECT counted.{inbox}, {topic}.{scope}, counted.number"
        f" FROM (SELECT {receipt}.{inbox}, {receipt}.{receipts_topic}, COUNT(*) AS number FROM {receipt}"
        f" JOIN {_given_values(Receipt, 'inbox')} ON {receipt}.{inbox} = given.{inbox}"
        f" WHERE {receipt}.{read_at} IS NULL GROUP BY {receipt}.{inbox}, {receipt}.{receipts_topic}) AS counted"
        f" JOIN {topic} ON {topic}.{pk} = counted.{receipts_topic}",
        list(inboxes),
    )


def among(model: type[models.Model], field: str, values: Iterable[object]) -> RawSQL:
    """What `<field>__in` takes, with all the values as one parameter: of single ones each costs some microseconds."""
    (column,) = _quoted(_names(model, field))
    return RawSQL(f"SELECT {column} FROM {_given_values(model, field)}", [as_json(list(values)).decode()])


def _objects(names: Sequence[str], rows: Iterable[tuple[object, ...]]) -> list[dict[str, object]]:
    return [dict(zip(names, row, strict=True)) for row in rows]


def _run(statement: str, given: Sequence[object]) -> list[Any]:
    """What a statement answers whose only parameter are the `given` rows; without rows it need not be asked."""
    if not given:
        return []
    if connection.vendor != "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(statement, [_json_for_sqlite(given)])
            return cursor.fetchall() if cursor.description else []
    return _send(statement, as_json(given))


def _send(statement: str, given: bytes) -> list[Any]:
    """What PostgreSQL answers to a statement whose only parameter are rows as JSON."""
    connection.ensure_connection()
    with connection.wrap_database_errors:  # Django's own cursor would write the rows into the statement first
        sent = psycopg.Cursor(connection.connection).execute(statement, [given.decode()])
        return sent.fetchall() if sent.description else []


def _json_for_sqlite(given: Iterable[object]) -> str:
    """SQLite keeps a moment as text, in Django's form."""
    plain = [msgspec.structs.asdict(row) if isinstance(row, NewReceipt) else row for row in given]
    adapt = connection.ops.adapt_datetimefield_value
    return orjson.dumps(plain, default=adapt, option=orjson.OPT_PASSTHROUGH_DATETIME).decode()


def _given(model: type[models.Model], names: Sequence[str]) -> str:
    """SQL for the rows that come as JSON, as a table `given` that has these columns of the model's table.

    PostgreSQL reads them as rows of that table, with its types: what doesn't fit is refused, not cut.
    """
    if connection.vendor == "postgresql":
        return f"json_populate_recordset(NULL::{_table(model)}, %s) AS given"
    return _given_to_sqlite(names)


def _given_values(model: type[models.Model], field: str) -> str:
    """As `_given`, for values of one column, which come without its name."""
    (column,) = _quoted(_names(model, field))
    if connection.vendor != "postgresql":
        return f"(SELECT value AS {column} FROM json_each(%s)) AS given"
    kind = model._meta.get_field(field).db_type(connection)
    return f"(SELECT value::{kind} AS {column} FROM json_array_elements_text(%s)) AS given"


def _given_of(fields: Mapping[str, type[models.Model]]) -> str:
    """As `_given`, for rows whose columns are fields of several models."""
    names = [_names(model, field)[0] for field, model in fields.items()]
    if connection.vendor != "postgresql":
        return _given_to_sqlite(names)
    types = [model._meta.get_field(field).db_type(connection) for field, model in fields.items()]
    columns = zip(_quoted(names), types, strict=True)
    return f"json_to_recordset(%s) AS given({', '.join(f'{column} {kind}' for column, kind in columns)})"


def _given_to_sqlite(names: Sequence[str]) -> str:
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
