"""What a person does in a conversation: send, read, delete. All are forms, and all work without scripts."""

from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect, QueryDict
from django.utils import timezone
from django.views.decorators.http import require_POST

from conversations import answers, entries, fragments, links, places
from conversations.entries import Entry
from conversations.views import conversation
from messaging import inboxes, parameters, sending
from messaging.answers import refusal
from messaging.errors import MessagingError
from messaging.sessions import Access
from messaging.wire import ThreadAddress


@require_POST
@answers.refusable
async def send(request: HttpRequest, agent_name: str, activation_name: str) -> HttpResponseBase:
    """Send what was typed. The page's script gets the bubble; a plain form gets the page again.

    The request id comes from the page, so that pressing Retry, or sending a form twice, sends once.
    """
    place = await places.find(request, holding=(agent_name, activation_name))
    address = place.address(agent_name, activation_name)
    try:
        entry, topic = await _send(request.POST, address, place.access)
    except MessagingError as error:
        if answers.is_scripted(request):
            return refusal(error)
        kept: dict[str, object] = {"typed": request.POST.get("text", ""), "send_problem": error.sentence}
        topic = request.POST.get("topic", "")
        return await conversation.show(request, place, address, topic, kept=kept, status=error.status)
    if answers.is_scripted(request):
        return HttpResponse(fragments.item_html(entry))
    return HttpResponseRedirect(links.conversation(address, topic) + "#composer")


async def _send(form: QueryDict, address: ThreadAddress, access: Access) -> tuple[Entry, str]:
    text, request_id = parameters.text(form) or "", parameters.request_id(form)
    topic = await parameters.existing_topic(form, address)
    sent = await sending.send(address, text=text, topic=topic, request_id=request_id, access=access)
    return entries.own(text, request_id=sent.request_id, topic=topic, at=timezone.now()), topic


@require_POST
async def read(request: HttpRequest, agent_name: str, activation_name: str) -> HttpResponseBase:
    """Mark a topic as read, up to the message that was seen. Open pages hear of it through their streams."""
    try:
        address, access = await places.address(request, agent_name, activation_name)
        topic = await parameters.existing_topic(request.POST, address)
        await inboxes.read(address, topic, up_to=request.POST.get("upTo") or None, access=access)
    except MessagingError as error:
        return refusal(error) if answers.is_scripted(request) else await answers.refused(request, error)
    if answers.is_scripted(request):
        return HttpResponse(status=204)
    return HttpResponseRedirect(links.conversation(address, topic))


@require_POST
@answers.refusable
async def delete(request: HttpRequest, agent_name: str, activation_name: str) -> HttpResponseBase:
    """Delete all messages of a topic, then show General Discussions."""
    place = await places.find(request, holding=(agent_name, activation_name))
    address = place.address(agent_name, activation_name)
    topic = await parameters.existing_topic(request.POST, address)
    await inboxes.delete_topic(address, topic, access=place.access)
    if not answers.wants_part(request):
        return HttpResponseRedirect(links.conversation(address))
    response = await conversation.show(request, place, address, "")
    response["HX-Push-Url"] = links.conversation(address)
    response["HX-Trigger-After-Settle"] = "topics-changed"
    return response
