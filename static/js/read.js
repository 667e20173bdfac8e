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
  const newest = [...messages.querySelectorAll(":scope > [data-kind=answer]")].at(-1)?.dataset.id ?? "";
  const key = thread.dataset.topicKey;
  const seen = `${newest}:${unreadOf(key)}`;
  if ((!newest && !unreadOf(key)) || confirmed.get(key) === seen) return;
  confirmed.set(key, seen);
  const body = new URLSearchParams({ topic: thread.dataset.topic, upTo: newest });
  try {
    const response = await fetch(thread.dataset.readUrl, { method: "POST", body, headers: ownHeaders(), keepalive: true });
    if (!response.ok) confirmed.delete(key);
  } catch {
    confirmed.delete(key);
  }
}

const LIVE = ({ detail }) => detail.state === "live" && soon();
for (const event of ["thread:shown", "messages:changed", "visibilitychange", "stream:unread"]) {
  document.addEventListener(event, soon);
}
document.addEventListener("stream:state", LIVE);
