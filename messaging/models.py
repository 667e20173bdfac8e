"""Unread state: inboxes, their topics, and one receipt for every answer that has been counted.

The number on a badge is never stored: it is the count of receipts without `read_at`.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Inbox(models.Model):
    """One participant's view of one activation."""

    key = models.CharField(max_length=64, unique=True, editable=False)
    tenant_id = models.CharField(max_length=255)
    participant_id = models.CharField(max_length=320)
    agent_name = models.CharField(max_length=255)
    activation_name = models.CharField(max_length=255)
    first_visit_at = models.DateTimeField(auto_now_add=True)
    checked_at = models.DateTimeField(
        null=True, editable=False, help_text="Last comparison with upstream that found something."
    )

    class Meta:
        verbose_name_plural = "inboxes"
        indexes: ClassVar = [models.Index(fields=["tenant_id", "participant_id"], name="inbox_person")]

    def __str__(self) -> str:
        return f"{self.participant_id} · {self.agent_name} / {self.activation_name} ({self.tenant_id})"


class Topic(models.Model):
    """A topic of an inbox, with its read position.

    Everything up to `floor` (a message's `order`) is settled: it is older than the first visit, or was read and
    pruned, and is never counted again. `upstream_count` and `upstream_last_at` are what upstream's topic list
    said when everything behind it had been fetched.
    """

    inbox = models.ForeignKey(Inbox, on_delete=models.CASCADE, related_name="topics")
    key = models.CharField(max_length=64, editable=False)
    scope = models.TextField(blank=True, help_text="Empty: General Discussions.")
    floor = models.CharField(max_length=64, blank=True)
    upstream_count = models.PositiveIntegerField(default=0)
    upstream_last_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["inbox", "key"], name="one_topic_per_scope")]

    def __str__(self) -> str:
        return self.scope or "General Discussions"


class Receipt(models.Model):
    """One answer (Outgoing, Chat) that is known to an inbox: unread until `read_at`.

    A message that doesn't count may have one, too, if it came late; it is made as read.
    """

    # The topic's, which the database does check: a second check and a second index for each receipt cost more than the
    # receipt itself. `one_receipt_per_message` is an index that begins with the inbox.
    inbox = models.ForeignKey(
        Inbox, on_delete=models.CASCADE, related_name="receipts", db_index=False, db_constraint=False
    )
    topic = models.ForeignKey(Topic, on_delete=models.CASCADE, related_name="receipts")
    message_id = models.CharField(max_length=255)
    order = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(help_text="When upstream stored the message.")
    known_at = models.DateTimeField(help_text="When we first heard of it; a second later where it came late.")
    came_late = models.BooleanField(
        default=False, db_default=False, editable=False, help_text="Handed out with a place before newer ones."
    )
    read_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = "unread message"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["inbox", "message_id"], name="one_receipt_per_message")
        ]
        indexes: ClassVar = [
            models.Index(fields=["inbox", "topic"], condition=models.Q(read_at=None), name="receipt_unread")
        ]

    def __str__(self) -> str:
        return self.message_id


class Dispatch(models.Model):
    """One `send`, remembered by its request id so that a repeat sends nothing."""

    inbox = models.ForeignKey(Inbox, on_delete=models.CASCADE, related_name="dispatches")
    request_id = models.CharField(max_length=100)
    thread_id = models.CharField(max_length=100, blank=True, help_text="Empty: not known to have arrived.")
    first_at = models.DateTimeField()
    busy_since = models.DateTimeField(null=True, help_text="Set while somebody is sending it.")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["inbox", "request_id"], name="one_dispatch_per_request")
        ]

    def __str__(self) -> str:
        return self.request_id
