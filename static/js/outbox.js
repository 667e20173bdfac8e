// Messages on their way: the bubble appears at once and says how far it is. The same requestId however often it is
// tried, so that the server sends it once.

import { emit, fromHtml, fromTemplate, ownHeaders, showState } from "./fragment.js";
import { addToOutbox, outbox, removeFromOutbox } from "./kept.js";
import { confirm, place } from "./messages.js";
import { signIn } from "./signin.js";

const PATIENCE = 60_000;
const underway = new Set();

const bubbleOf = (entry) => document.getElementById(`request-${entry.requestId}`);
const openKey = () => document.getElementById("thread")?.dataset.topicKey;

/** Show a message as being sent, keep it, and send it. */
export function post(entry) {
  addToOutbox(entry);
  draw(entry);
  return deliver(entry);
}

function draw(entry) {
  const bubble = fromTemplate("own-template");
  bubble.id = `request-${entry.requestId}`;
  bubble.dataset.at = entry.at;
  bubble.dataset.topic = entry.topicKey;
  bubble.querySelector("[data-text]").textContent = entry.text;
  place(bubble);
}

async function deliver(entry) {
  if (underway.has(entry.requestId)) return;
  underway.add(entry.requestId);
  say(entry, "sending");
  emit("outbox:sending", entry);
  try {
    const body = new URLSearchParams({ text: entry.text, topic: entry.topic, requestId: entry.requestId });
    const response = await fetch(entry.url, {
      method: "POST", body, headers: ownHeaders(), redirect: "manual", signal: AbortSignal.timeout(PATIENCE),
    });
    if (response.ok) accepted(entry, await response.text());
    else await refused(entry, response);
  } catch (problem) {
    if (problem.name === "TimeoutError") failed(entry, "the server took too long");
    else say(entry, "waiting");
  } finally {
    underway.delete(entry.requestId);
  }
}

function accepted(entry, html) {
  removeFromOutbox(entry.requestId);
  if (openKey() !== entry.topicKey) return;
  confirm(fromHtml(html));
  emit("outbox:sent", entry);
}

async function refused(entry, response) {
  if (response.type === "opaqueredirect" || response.status === 401) {
    failed(entry, "please sign in again");
    signIn(document.getElementById("conversation").dataset.loginUrl);
    return;
  }
  const said = await response.json().catch(() => ({}));
  const isPageOld = response.status === 403 && !said.error;
  failed(entry, isPageOld ? "this page is out of date, reload it" : said.error, response.status < 500);
}

function failed(entry, reason = "", isTakeable = false) {
  const bubble = say(entry, "failed");
  emit("outbox:failed", entry);
  if (!bubble) return;
  bubble.querySelector("[data-reason]").textContent = reason ? `: ${reason}` : "";
  bubble.querySelector("[data-retry]").hidden = false;
  bubble.querySelector("[data-take-back]").hidden = !isTakeable;
}

function say(entry, state) {
  const bubble = bubbleOf(entry);
  if (!bubble?.dataset.state) return null;
  bubble.dataset.state = state;
  showState(bubble, state);
  for (const button of bubble.querySelectorAll("button")) button.hidden = true;
  return bubble;
}

/** Bubbles of what is still on its way in the topic that is shown now, and of what an earlier visit could not send. */
function restore() {
  if (!document.getElementById("messages")) return;
  for (const entry of outbox().filter((each) => each.topicKey === openKey())) {
    const bubble = bubbleOf(entry);
    if (bubble && !bubble.dataset.state) removeFromOutbox(entry.requestId);
    else if (!bubble) {
      draw(entry);
      if (!underway.has(entry.requestId)) failed(entry, "", false);
    }
  }
}

function retryWaiting() {
  for (const entry of outbox()) if (bubbleOf(entry)?.dataset.state === "waiting") deliver(entry);
}

document.addEventListener("thread:shown", restore);
document.addEventListener("stream:state", ({ detail }) => detail.state === "live" && retryWaiting());
addEventListener("online", retryWaiting);
document.addEventListener("message:arrived", ({ detail: { item } }) => {
  if (item.id.startsWith("request-")) removeFromOutbox(item.id.slice("request-".length));
});
document.addEventListener("click", ({ target }) => {
  const bubble = target.closest("[data-retry], [data-take-back]")?.closest(".message");
  const entry = bubble && outbox().find((each) => `request-${each.requestId}` === bubble.id);
  if (!entry) return;
  if (target.closest("[data-retry]")) deliver(entry);
  else {
    removeFromOutbox(entry.requestId);
    bubble.remove();
    emit("composer:fill", { text: entry.text });
  }
});
