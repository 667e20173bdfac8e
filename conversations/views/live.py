"""The page's own stream: finished HTML instead of upstream's JSON."""

from datetime import timedelta
from typing import Final

from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.http import require_GET

from conversations import fragments, places
from conversations.views.conversation import HEARTBEAT_SECONDS
from messaging import parameters, sessions, streams
from messaging.answers import refusal
from messaging.errors import MessagingError

OVERLAP: Final = timedelta(minutes=1)
"""A message twice does no harm here: its element has its id. So rather a minute too much than one too little."""


@require_GET
async def stream(request: HttpRequest, agent_name: str, activation_name: str) -> HttpResponseBase:
    """Everything that happens in this conversation, from the page's cursor on.

    Reading is confirmed by the page itself, so the stream shows nothing by itself (`shows`). What is refused is
    refused as JSON with its status: the page's script tells an ended sign-in from an outage by it.
    """
    try:
        address, access = await places.address(request, agent_name, activation_name)
        wishes = streams.Wishes(
            last_event_id=parameters.cursor(request.GET, request.headers.get("Last-Event-ID")),
            heartbeat_seconds=HEARTBEAT_SECONDS,
            encode=fragments.encoder(address),
            overlap=OVERLAP,
            wants_status=True,
        )
        return await streams.open_stream(address, access, wishes)
    except MessagingError as error:
        return refusal(error)


@require_GET
async def overview(request: HttpRequest) -> HttpResponseBase:
    """Word that a count has changed, in any inbox of this person."""
    try:
        access = await sessions.access(request)
        wishes = streams.Wishes(None, HEARTBEAT_SECONDS, encode=fragments.changes)
        return await streams.open_overview(access, wishes)
    except MessagingError as error:
        return refusal(error)
