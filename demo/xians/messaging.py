"""`send`, `topics`, `history` and the deletion of a topic."""

import uuid

from demo.xians import conversation, errors, reply
from demo.xians.call import Call
from demo.xians.messages import TYPES, Draft, Message
from demo.xians.reply import Reply
from demo.xians.site import Site


def topic_of(text: str | None) -> str | None:
    """A topic as `send` and `DELETE` understand it: trimmed, and nothing left means the default one."""
    return (text or "").strip() or None


async def send(site: Site, call: Call) -> Reply:
    """Store what a person says; the answer is the bare thread id."""
    fields = call.json_object()
    address_fields = [fields.text(name) for name in ("topic", "requestId", "hint", "origin", "authorization")]
    scope, request_id, hint, origin, authorization = address_fields
    text = fields.text("text", is_required=True)
    kind = fields.member_of("type", TYPES, "Chat")
    address = conversation.addressed_by_body(call, fields)
    conversation.check_activation(site.world, address)
    thread = conversation.ensure_thread(site.world, address)
    request_id = request_id or str(uuid.uuid4())
    _signal(site, call, request_id, authorization)
    site.world.messages.add(
        thread,
        Draft(
            direction="Incoming",
            type=kind,
            text=text,
            data=fields.any("data"),
            scope=topic_of(scope),
            request_id=request_id,
            hint=hint,
            origin=origin,
            created_by=call.owner,
        ),
    )
    return reply.of_json(thread.id)


def _signal(site: Site, call: Call, request_id: str | None, authorization: str | None) -> None:
    """What the agent is handed: an absent `authorization` is the caller's own key, a trap worth keeping."""
    key = call.key.key if call.key else ""
    handed = key if authorization is None else authorization
    site.signals.append({"route": call.path, "requestId": request_id, "authorization": handed})


async def topics(site: Site, call: Call) -> Reply:
    page, page_size = call.integer("page", 1), call.integer("pageSize", 20)
    address = conversation.addressed_by_query(call)
    conversation.check_activation(site.world, address)
    _check_paging(page, page_size)
    clock = site.world.clock
    thread = conversation.find_thread(site.world, address)
    if thread is None:
        only = {"scope": None, "messageCount": 0, "lastMessageAt": "0001-01-01T00:00:00"}
        return reply.of_json({"topics": [only], "pagination": _pagination(page, page_size, 1, pages=1)})
    found = []
    for scope, messages in site.world.messages.topics(thread).items():
        seen = [message for message in messages if site.behaviour.sees(message)]
        if seen:
            found.append((scope, len(seen), max(message.created_at for message in seen)))
    found.sort(key=lambda topic: (topic[0] is not None, topic[0] or ""))
    found.sort(key=lambda topic: topic[2], reverse=True)
    start = (page - 1) * page_size
    return reply.of_json(
        {
            "topics": [
                {"scope": scope, "messageCount": count, "lastMessageAt": clock.written(last)}
                for scope, count, last in found[start : start + page_size]
            ],
            "pagination": _pagination(page, page_size, len(found), pages=-(-len(found) // page_size)),
        }
    )


def _pagination(page: int, page_size: int, total: int, *, pages: int) -> dict[str, int | bool]:
    return {
        "currentPage": page,
        "pageSize": page_size,
        "totalTopics": total,
        "totalPages": pages,
        "hasMore": page < pages,
    }


def _check_paging(page: int, page_size: int) -> None:
    if page < 1 or page_size < 1:
        raise errors.failed(400, "Page and PageSize must be greater than 0")


async def history(site: Site, call: Call) -> Reply:
    """One page of one topic. As upstream does, `chatOnly` is read and ignored; the topic is not trimmed."""
    page, page_size = call.integer("page", 1), call.integer("pageSize", 50)
    call.boolean("chatOnly")
    address = conversation.addressed_by_query(call)
    conversation.check_activation(site.world, address)
    order = (call.optional("sortOrder") or "desc").lower()
    if order not in ("asc", "desc"):
        raise errors.blank("sortOrder must be either 'asc' or 'desc'")
    _check_paging(page, page_size)
    thread = conversation.find_thread(site.world, address)
    found: list[Message] = []
    if thread is not None:
        in_topic = site.world.messages.topics(thread).get(call.optional("topic") or None, [])
        found = [message for message in in_topic if site.behaviour.sees(message)]
    found.sort(key=lambda message: message.created_at, reverse=order == "desc")
    start = (page - 1) * page_size
    return reply.of_json([message.as_history(site.world.clock) for message in found[start : start + page_size]])


async def delete(site: Site, call: Call) -> Reply:
    """Delete one topic; nothing is streamed, and nothing to delete is fine too."""
    address = conversation.addressed_by_query(call)
    conversation.check_activation(site.world, address)
    thread = conversation.find_thread(site.world, address)
    if thread is not None:
        site.world.messages.delete_topic(thread, topic_of(call.optional("topic")))
    return reply.of_json(value=True)
