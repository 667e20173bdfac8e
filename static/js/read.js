// Reading is confirmed by the browser: the newest answer of the open topic stands on the page, and the page is looked
// at. A hidden tab reads nothing until somebody comes back to it.

import { unreadOf } from "./badges.js";
import { ownHeaders } from "./fragment.js";

const PAUSE = 150;
const confirmed = new Map();
let timer = 0;

function soon() {
  clearTimeout(timer);
  timer = setTimeout(confirm, PAUSE);
}

async function confirm() {
  const thread = document.getElementById("thread");
  const messages = document.getElementById("messages");
  if (!thread || !messages || document.hidden) return;
  const key = thread.dataset.topicKey;
  const answer = [...messages.querySelectorAll(":scope > [data-kind=answer]")].at(-1)?.dataset.id;
  const newest = answer ?? (unreadOf(key) ? newestOfAll(messages) : "");
  const seen = `${newest}:${unreadOf(key)}`;
  if (!newest || confirmed.get(key) === seen) return; // never all of a topic: what isn't shown stays unread
  confirmed.set(key, seen);
  const body = new URLSearchParams({ topic: thread.dataset.topic, upTo: newest });
  try {
    const response = await fetch(thread.dataset.readUrl, { method: "POST", body, headers: ownHeaders(), keepalive: true });
    if (!response.ok) confirmed.delete(key);
  } catch {
    confirmed.delete(key);
  }
}

/** Where no answer stands on the page, those that are unread are above it: they are older than anything that does. */
function newestOfAll(messages) {
  return [...messages.querySelectorAll("[id^=message-]")].at(-1)?.id.slice("message-".length) ?? "";
}

const LIVE = ({ detail }) => detail.state === "live" && soon();
for (const event of ["thread:shown", "messages:changed", "visibilitychange", "stream:unread"]) {
  document.addEventListener(event, soon);
}
document.addEventListener("stream:state", LIVE);
