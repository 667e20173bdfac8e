"""Ratings of agent messages: made once, then only read."""

from datetime import datetime

from demo.xians import errors, notation, reply
from demo.xians.call import Call
from demo.xians.messages import Message
from demo.xians.notation import Json
from demo.xians.reply import Reply
from demo.xians.site import Site

REASONS = (
    "FactuallyIncorrect",
    "MissingImportantDetails",
    "DidNotAnswerActualQuestion",
    "ResponseTooGeneric",
    "ResponseTooLong",
    "ResponseDifficultToUnderstand",
    "FabricatedInformation",
    "WrongAssumptionsOrContext",
    "FailedToFollowConstraints",
    "ToolActionFailure",
    "UnsafeOrRiskyOutput",
    "PoorCodeQuality",
    "PerformanceIssue",
    "Other",
    "NotAccurate",
    "Irrelevant",
    "MissingInstructions",
    "IncompleteResponse",
)
_HEX = set("0123456789abcdefABCDEF")
_COPIED = ("messageId", "threadId", "agentName", "workflowId", "workflowType", "participantId")


async def create(site: Site, call: Call) -> Reply:
    fields = call.json_object()
    copied = {name: fields.text(name, is_required=True) or "" for name in _COPIED}
    rating = fields.integer("starRating")
    reason = fields.member_of("reasonCategory", REASONS, None)
    comment = (fields.text("comment") or "").strip() or None
    _check_rating(copied, rating, reason, comment)
    message = _rated_message(site, call, copied)
    _check_copied(copied, message)
    if message.feedback is not None:
        raise errors.failed(409, "Feedback has already been submitted for this message.")
    submitted_at = site.world.clock.written(site.world.clock.now())
    feedback_id = site.world.messages.new_id()
    site.world.messages.rate(
        message,
        feedback_id,
        {
            "starRating": rating,
            "reasonCategory": reason if rating < 4 else None,
            "comment": comment,
            "submittedBy": call.owner,
            "submittedAt": submitted_at,
        },
    )
    location = f"/api/v1/admin/tenants/{call.tenant_id}/feedback/{feedback_id}".encode()
    return reply.of_json({"id": feedback_id}, status=201, headers=[(b"location", location)])


def _check_rating(copied: dict[str, str], rating: int, reason: str | None, comment: str | None) -> None:
    if not copied["agentName"].strip():
        raise errors.failed(400, "Agent name is required")
    if not 1 <= rating <= 5:
        raise errors.failed(400, "Star rating must be between 1 and 5.")
    if rating < 4 and reason is None:
        raise errors.failed(400, "reasonCategory is required when star rating is below 4.")
    if rating < 4 and reason == "Other" and comment is None:
        raise errors.failed(400, "comment is required when reason category is Other.")


def _rated_message(site: Site, call: Call, copied: dict[str, str]) -> Message:
    message_id = copied["messageId"]
    if len(message_id) != 24 or not set(message_id) <= _HEX:
        raise errors.unhandled()
    message = site.world.messages.get(message_id)
    if message is None or message.thread.tenant_id != call.tenant_id:
        raise errors.failed(404, "Message not found.")
    return message


def _check_copied(copied: dict[str, str], message: Message) -> None:
    thread = message.thread
    same = {
        "threadId": copied["threadId"] == thread.id,
        "workflowId": copied["workflowId"] == thread.workflow_id,
        "workflowType": copied["workflowType"] == thread.workflow_type,
        "participantId": copied["participantId"].lower() == thread.participant_id,
    }
    for name, is_same in same.items():
        if not is_same:
            raise errors.failed(400, f"{name} does not match the message.")
    if message.draft.direction != "Outgoing":
        raise errors.failed(400, "Feedback can only be submitted for agent (outgoing) messages.")
    if copied["agentName"].lower() != thread.agent_name.lower():
        raise errors.failed(400, "agentName does not match the message workflow.")


def _item(message: Message) -> dict[str, Json]:
    thread, given = message.thread, message.feedback or {}
    return {
        "id": message.feedback_id,
        "messageId": message.id,
        "threadId": thread.id,
        "tenantId": thread.tenant_id,
        "agentName": thread.agent_name,
        "workflowId": thread.workflow_id,
        "workflowType": thread.workflow_type,
        "participantId": thread.participant_id,
        **given,
        "createdAt": given["submittedAt"],
    }


def _moment(call: Call, name: str) -> datetime | None:
    text = call.optional(name)
    if not text:
        return None
    try:
        return notation.moment(text)
    except ValueError:
        raise errors.empty(400) from None


def _selected(site: Site, call: Call) -> list[dict[str, Json]]:
    """The tenant's ratings that the query asks for, newest first."""
    rating = call.integer("rating") if call.optional("rating") is not None else None
    start, end = _moment(call, "startDate"), _moment(call, "endDate")
    if rating is not None and not 1 <= rating <= 5:
        raise errors.failed(400, "rating must be between 1 and 5.")
    if start and end and start > end:
        raise errors.failed(400, "startDate cannot be after endDate.")
    agent_name = call.optional("agentName")
    items = [
        _item(message)
        for message in site.world.messages.all()
        if message.feedback is not None and message.thread.tenant_id == call.tenant_id
    ]
    chosen = []
    for item in items:
        at = notation.moment(item["submittedAt"])
        is_wanted = rating in (None, item["starRating"]) and agent_name in (None, item["agentName"])
        if is_wanted and (start is None or at >= start) and (end is None or at <= end):
            chosen.append(item)
    return sorted(chosen, key=lambda item: str(item["id"]), reverse=True)


async def listing(site: Site, call: Call) -> Reply:
    page, size = call.integer("page", 1), call.integer("pageSize", 20)
    items = _selected(site, call)
    if page < 1:
        raise errors.failed(400, "page must be 1 or greater.")
    if not 1 <= size <= 100:
        raise errors.failed(400, "pageSize must be between 1 and 100.")
    return reply.of_json(
        {
            "items": items[(page - 1) * size : page * size],
            "totalCount": len(items),
            "page": page,
            "pageSize": size,
            "totalPages": -(-len(items) // size),
        }
    )


async def stats(site: Site, call: Call) -> Reply:
    items = _selected(site, call)
    ratings = [item["starRating"] for item in items]
    reasons = [item["reasonCategory"] for item in items if item["reasonCategory"]]
    counts = sorted(((reasons.count(reason), reason) for reason in set(reasons)), key=lambda one: (-one[0], one[1]))
    return reply.of_json(
        {
            "total": len(items),
            "averageRating": round(sum(ratings) / len(ratings), 2) if ratings else 0,
            "ratingCounts": [{"rating": stars, "count": ratings.count(stars)} for stars in range(1, 6)],
            "reasonCategoryCounts": [{"category": reason, "count": count} for count, reason in counts],
        }
    )


async def detail(site: Site, call: Call) -> Reply:
    """One rating with the messages around it, oldest first and across topics."""
    before = min(max(call.integer("contextBefore", 5), 0), 50)
    after = min(max(call.integer("contextAfter", 5), 0), 50)
    is_chat_only = call.boolean("chatOnly")
    wanted = call.parameters["feedbackId"]
    if len(wanted) != 24 or not set(wanted) <= _HEX:
        raise errors.failed(500, "Failed to retrieve feedback detail.")
    for rated in site.world.messages.all():
        if rated.feedback_id == wanted and rated.thread.tenant_id == call.tenant_id:
            break
    else:
        raise errors.failed(404, "Feedback not found.")
    topics = site.world.messages.topics(rated.thread).values()
    around = sorted((message for topic in topics for message in topic), key=lambda one: (one.created_at, one.number))
    if is_chat_only:
        around = [one for one in around if one.draft.type == "Chat" or one is rated]
    place = around.index(rated)
    shown = around[max(place - before, 0) : place + after + 1]
    return reply.of_json(
        {
            "feedback": _item(rated),
            "ratedMessageId": rated.id,
            "messages": [message.as_history(site.world.clock) for message in shown],
        }
    )
