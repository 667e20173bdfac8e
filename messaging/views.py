"""The HTTP API of interfaces.md section 2: parse, one call inward, answer."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponseBase
from django.http.request import RawPostDataException
from django.middleware.csrf import get_token

from messaging import inboxes, parameters, sending, sessions, streams, wire
from messaging.answers import api, fresh
from messaging.errors import Invalid, UpstreamMisbehaved
from messaging.sessions import Access
from messaging.wire import TopicSummary

_LONGEST_BODY = 1 << 20


@api("GET")
async def tenants(request: HttpRequest) -> HttpResponseBase:
    access = await sessions.access(request)
    get_token(request)  # sets the cookie that a client needs before its first POST
    mine = await inboxes.tenants(access)
    return fresh([{"tenantId": t.tenant_id, "name": t.name, "role": t.role} for t in mine])


@api("GET")
async def activations(request: HttpRequest, tenant_id: str) -> HttpResponseBase:
    access = await _member(request, tenant_id)
    found = await inboxes.activations(tenant_id, access=access, max_age=0)
    return fresh(
        [
            {
                "agentName": a.agent_name,
                "name": a.name,
                "description": a.description,
                "isActive": a.is_active,
                "unreadCount": a.unread_count,
            }
            for a in found
        ]
    )


@api("GET")
async def listen(request: HttpRequest, tenant_id: str) -> HttpResponseBase:
    access = await sessions.access(request)
    await inboxes.require_tenant(tenant_id, access)
    address = parameters.address(tenant_id, access.participant_id, request.GET)
    wishes = streams.Wishes(
        last_event_id=parameters.cursor(request.GET, request.headers.get("Last-Event-ID")),
        heartbeat_seconds=parameters.number(request.GET, "heartbeatSeconds", default=60, at_most=300),
        shows=await parameters.existing_topic(request.GET, address) if "topic" in request.GET else None,
    )
    return await streams.open_stream(address, access, wishes)


@api("POST")
async def send(request: HttpRequest, tenant_id: str) -> HttpResponseBase:
    access = await _member(request, tenant_id)
    body = _json(request)
    sent = await sending.send(
        parameters.address(tenant_id, access.participant_id, body),
        text=parameters.text(body),
        topic=parameters.topic(body),
        request_id=parameters.request_id(body),
        extras=parameters.extras(body),
        access=access,
    )
    return fresh({"threadId": sent.thread_id, "requestId": sent.request_id})


@api("GET")
async def topics(request: HttpRequest, tenant_id: str) -> HttpResponseBase:
    access = await _member(request, tenant_id)
    found = await inboxes.topics(
        parameters.address(tenant_id, access.participant_id, request.GET),
        page=parameters.page(request.GET),
        page_size=parameters.number(request.GET, "pageSize", default=20, at_most=100),
        access=access,
    )
    pagination = {
        "currentPage": found.page,
        "pageSize": found.page_size,
        "totalTopics": found.total_topics,
        "totalPages": found.total_pages,
        "hasMore": found.has_more,
    }
    return fresh({"topics": [_topic(topic) for topic in found.topics], "pagination": pagination})


def _topic(topic: TopicSummary) -> dict[str, Any]:
    return {
        "scope": topic.scope or None,
        "messageCount": topic.message_count,
        "lastMessageAt": _moment(topic.last_message_at),
        "unreadCount": topic.unread_count,
    }


@api("GET")
async def history(request: HttpRequest, tenant_id: str) -> HttpResponseBase:
    access = await _member(request, tenant_id)
    address = parameters.address(tenant_id, access.participant_id, request.GET)
    found = await inboxes.history(
        address,
        await parameters.existing_topic(request.GET, address),
        page=parameters.page(request.GET),
        page_size=parameters.number(request.GET, "pageSize", default=50, at_most=200),
        newest_first=parameters.newest_first(request.GET),
        chat_only=parameters.boolean(request.GET, "chatOnly"),
        access=access,
    )
    return fresh(found)


@api("DELETE")
async def messages(request: HttpRequest, tenant_id: str) -> HttpResponseBase:
    access = await _member(request, tenant_id)
    address = parameters.address(tenant_id, access.participant_id, request.GET)
    await inboxes.delete_topic(address, await parameters.existing_topic(request.GET, address), access=access)
    return fresh({"success": True})


@api("GET")
async def unread(request: HttpRequest, tenant_id: str) -> HttpResponseBase:
    access = await _member(request, tenant_id)
    address = parameters.address(tenant_id, access.participant_id, request.GET)
    found = await inboxes.unread(address, access=access)
    rows = [
        {
            "topic": row.topic or None,
            "unreadCount": row.unread_count,
            "oldestUnreadAt": _moment(row.oldest_unread_at),
        }
        for row in found.topics
    ]
    return fresh({"total": found.total, "topics": rows})


@api("POST")
async def read(request: HttpRequest, tenant_id: str) -> HttpResponseBase:
    access = await _member(request, tenant_id)
    body = _json(request)
    address = parameters.address(tenant_id, access.participant_id, body)
    topic = await parameters.existing_topic(body, address)
    up_to = parameters.optional(body, "upToMessageId", parameters.NAME_LENGTH)
    counts = await inboxes.read(address, topic, up_to=up_to, access=access)
    return fresh({"topic": counts.topic or None, "unreadCount": counts.unread_count, "total": counts.total})


async def _member(request: HttpRequest, tenant_id: str) -> Access:
    """The signed-in person, who belongs to the tenant. A participant that the client names is never looked at."""
    access = await sessions.access(request)
    get_token(request)
    await inboxes.require_tenant(tenant_id, access)
    return access


def _json(request: HttpRequest) -> dict[str, Any]:
    try:
        if len(request.body) > _LONGEST_BODY:
            raise Invalid("body", f"must have at most {_LONGEST_BODY} bytes")
        body = wire.load_json_exactly(request.body)
        json.dumps(body, ensure_ascii=False).encode()  # half a character can't be sent on
    except RequestDataTooBig as problem:
        raise Invalid("body", f"must have at most {_LONGEST_BODY} bytes") from problem
    except (UpstreamMisbehaved, UnicodeError, RawPostDataException) as problem:
        raise Invalid("body", "must be JSON") from problem
    if not isinstance(body, dict):
        raise Invalid("body", "must be a JSON object")
    return body


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None
