"""Keeping a world's changes in a file, one JSON line each, so that a killed server remembers.

Only what happens is kept: threads, messages, deletions and ratings. The tenants, people and agents are
code, and are built anew at every start.
"""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TextIO

from demo.xians.messages import Draft, Message, MessageStore, Thread
from demo.xians.notation import Json


class Journal:
    """A file that a message store writes to. Lines are flushed at once, so even SIGKILL loses nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def restore(self, store: MessageStore) -> bool:
        """Read the file into an empty store and keep it up from now on; false if it was empty."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        threads: dict[str, Thread] = {}
        for line in lines:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                break
            _apply(store, threads, entry)
        self._follow(store)
        return bool(lines)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _follow(self, store: MessageStore) -> None:
        self._file = self.path.open("w")
        for thread in store.threads():
            self._write("thread", asdict(thread))
        for message in store.all():
            self._message(message)
        changes = store.changes
        changes.thread_made.append(lambda thread: self._write("thread", asdict(thread)))
        changes.message_stored.append(self._message)
        changes.message_rated.append(self._message)
        changes.all_cleared.append(lambda: self._write("cleared", None))
        changes.topic_deleted.append(lambda thread, scope: self._write("deleted", [thread.id, scope]))

    def _message(self, message: Message) -> None:
        self._write(
            "message",
            {
                "id": message.id,
                "thread": message.thread.id,
                "draft": asdict(message.draft),
                "data": message.data,
                "created_at": message.created_at.isoformat(),
                "number": message.number,
                "feedback": message.feedback,
                "feedback_id": message.feedback_id,
            },
        )

    def _write(self, kind: str, value: Json) -> None:
        if self._file is not None:
            self._file.write(json.dumps([kind, value], default=float) + "\n")
            self._file.flush()


def _apply(store: MessageStore, threads: dict[str, Thread], entry: Json) -> None:
    kind, value = entry
    if kind == "thread":
        threads[value["id"]] = store.keep_thread(Thread(**value))
        store.learn_id(value["id"])
    elif kind == "message":
        store.learn_id(value["id"])
        store.keep(
            Message(
                id=value["id"],
                thread=threads[value["thread"]],
                draft=Draft(**value["draft"]),
                data=value["data"],
                created_at=datetime.fromisoformat(value["created_at"]),
                number=value["number"],
                stored_at=0.0,
                feedback=value["feedback"],
                feedback_id=value["feedback_id"],
            )
        )
    elif kind == "deleted":
        store.delete_topic(threads[value[0]], value[1])
    else:
        store.clear()
