"""Unread state in Django's admin: to look at, to mark as read, to compare with upstream; nothing else."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from asgiref.sync import async_to_sync
from django.contrib import admin, messages
from django.db.models import Count, Min, Model, Q, QuerySet
from django.http import HttpRequest

from messaging import errors, oversight, unread
from messaging.changes import InboxRef
from messaging.models import Inbox, Receipt, Topic
from messaging.runtime import current

admin.site.site_header = admin.site.site_title = "Conversations: administration"
admin.site.index_title = "Unread state and accounts"

_UNREAD = Q(receipts__isnull=False, receipts__read_at=None)


if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

    _Base = ModelAdmin[Any]
else:
    _Base = admin.ModelAdmin


class ReadOnlyAdmin(_Base):
    """Rows that only the store may write."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def _can_act(request: HttpRequest) -> bool:
    """Acting on other people's unread state is for those who may change inboxes."""
    return request.user.has_perm("messaging.change_inbox")


@admin.register(Inbox)
class InboxAdmin(ReadOnlyAdmin):
    list_display = ("participant_id", "tenant_id", "agent_name", "activation_name", "unread_count", "oldest_unread")
    list_filter = ("tenant_id", "agent_name")
    search_fields = ("participant_id", "agent_name", "activation_name", "tenant_id")
    actions = ("mark_as_read", "resync")
    list_per_page = 50

    def get_queryset(self, request: HttpRequest) -> QuerySet[Inbox]:
        rows = super().get_queryset(request)
        unread_rows = Count("receipts", filter=_UNREAD)
        found: QuerySet[Any] = rows.annotate(unread=unread_rows, oldest=Min("receipts__created_at", filter=_UNREAD))
        return found

    @admin.display(description="unread", ordering="unread")
    def unread_count(self, inbox: Any) -> int:
        return int(inbox.unread)

    @admin.display(description="oldest unread", ordering="oldest")
    def oldest_unread(self, inbox: Any) -> datetime | None:
        found: datetime | None = inbox.oldest
        return found

    def has_act_permission(self, request: HttpRequest) -> bool:
        return _can_act(request)

    @admin.action(description="Mark as read", permissions=["act"])
    def mark_as_read(self, request: HttpRequest, queryset: QuerySet[Inbox]) -> None:
        cleared = async_to_sync(_clear)([unread.reference(inbox) for inbox in queryset])
        self.message_user(request, f"{cleared} marked as read.")

    @admin.action(description="Resync from upstream", permissions=["act"])
    def resync(self, request: HttpRequest, queryset: QuerySet[Inbox]) -> None:
        for inbox in queryset:
            try:
                found = async_to_sync(_resync)(unread.reference(inbox))
            except errors.MessagingError as problem:
                self.message_user(request, f"{problem.sentence} ({inbox})", messages.ERROR)
            else:
                self.message_user(request, f"{found} unread after comparing with upstream: {inbox}.")


async def _clear(inboxes: list[InboxRef]) -> int:
    return sum([await oversight.clear_inbox(current(), inbox) for inbox in inboxes])


async def _resync(inbox: InboxRef) -> int:
    return await oversight.resync(current(), inbox)


@admin.register(Topic)
class TopicAdmin(ReadOnlyAdmin):
    list_display = ("name", "participant", "tenant", "agent", "activation", "unread_count", "oldest_unread")
    list_filter = ("inbox__tenant_id", "inbox__agent_name")
    search_fields = ("scope", "inbox__participant_id", "inbox__agent_name", "inbox__activation_name")
    list_select_related = ("inbox",)
    list_per_page = 50

    def get_queryset(self, request: HttpRequest) -> QuerySet[Topic]:
        rows = super().get_queryset(request)
        unread_rows = Count("receipts", filter=_UNREAD)
        found: QuerySet[Any] = rows.annotate(unread=unread_rows, oldest=Min("receipts__created_at", filter=_UNREAD))
        return found

    @admin.display(description="topic", ordering="scope")
    def name(self, topic: Topic) -> str:
        return str(topic)[:80]

    @admin.display(ordering="inbox__participant_id")
    def participant(self, topic: Topic) -> str:
        return topic.inbox.participant_id

    @admin.display(ordering="inbox__tenant_id")
    def tenant(self, topic: Topic) -> str:
        return topic.inbox.tenant_id

    @admin.display(ordering="inbox__agent_name")
    def agent(self, topic: Topic) -> str:
        return topic.inbox.agent_name

    @admin.display(ordering="inbox__activation_name")
    def activation(self, topic: Topic) -> str:
        return topic.inbox.activation_name

    @admin.display(description="unread", ordering="unread")
    def unread_count(self, topic: Any) -> int:
        return int(topic.unread)

    @admin.display(description="oldest unread", ordering="oldest")
    def oldest_unread(self, topic: Any) -> datetime | None:
        found: datetime | None = topic.oldest
        return found


class IsUnread(admin.SimpleListFilter):
    """Unread answers unless asked otherwise."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("", "Unread"), ("read", "Read"), ("all", "All")]

    def choices(self, changelist: Any) -> Any:
        """Without Django's own "All": no choice means unread."""
        for value, title in self.lookup_choices:
            query = changelist.get_query_string(
                {self.parameter_name: value} if value else {}, [] if value else [self.parameter_name]
            )
            yield {"selected": (self.value() or "") == value, "query_string": query, "display": title}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Receipt]) -> QuerySet[Receipt]:
        if self.value() == "all":
            return queryset
        return queryset.filter(read_at__isnull=self.value() != "read")


@admin.register(Receipt)
class ReceiptAdmin(ReadOnlyAdmin):
    list_display = ("message_id", "participant", "tenant", "agent", "activation", "topic", "created_at", "read_at")
    list_filter: ClassVar = (IsUnread, "inbox__tenant_id", "inbox__agent_name")
    search_fields = ("message_id", "topic__scope", "inbox__participant_id", "inbox__agent_name")
    list_select_related = ("inbox", "topic")
    date_hierarchy = "created_at"
    actions = ("mark_as_read",)
    list_per_page = 50

    @admin.display(ordering="inbox__participant_id")
    def participant(self, receipt: Receipt) -> str:
        return receipt.inbox.participant_id

    @admin.display(ordering="inbox__tenant_id")
    def tenant(self, receipt: Receipt) -> str:
        return receipt.inbox.tenant_id

    @admin.display(ordering="inbox__agent_name")
    def agent(self, receipt: Receipt) -> str:
        return receipt.inbox.agent_name

    @admin.display(ordering="inbox__activation_name")
    def activation(self, receipt: Receipt) -> str:
        return receipt.inbox.activation_name

    def has_act_permission(self, request: HttpRequest) -> bool:
        return _can_act(request)

    @admin.action(description="Mark as read", permissions=["act"])
    def mark_as_read(self, request: HttpRequest, queryset: QuerySet[Receipt]) -> None:
        by_inbox: dict[InboxRef, set[str]] = {}
        for receipt in queryset.filter(read_at=None):
            by_inbox.setdefault(unread.reference(receipt.inbox), set()).add(receipt.message_id)
        cleared = async_to_sync(_clear_some)(by_inbox)
        self.message_user(request, f"{cleared} marked as read.")


async def _clear_some(by_inbox: dict[InboxRef, set[str]]) -> int:
    runtime = current()
    return sum([await oversight.clear_inbox(runtime, inbox, only=frozenset(ids)) for inbox, ids in by_inbox.items()])
