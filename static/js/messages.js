// Messages that arrive while the page is open: each stands once, in its place, drawn by the server.

import * as days from "./days.js";
import { emit, fromHtml } from "./fragment.js";
import { keepPlace } from "./scroll.js";
import * as steps from "./steps.js";

const ANNOUNCED = 200;
const PENDING = new Set(["sending", "waiting", "failed"]);
const REMEMBERED = 200;
let meanwhile = []; // what arrived since messages were last asked for: they may have been drawn before it

const list = () => document.getElementById("messages");

document.addEventListener("stream:message", ({ detail }) => {
  const item = fromHtml(detail.html);
  meanwhile = [...meanwhile, detail.html].slice(-REMEMBERED);
  const thread = document.getElementById("thread");
  const isOpen = Boolean(list()) && item.dataset.topic === thread.dataset.topicKey;
  const isNew = isOpen && place(item);
  emit("message:arrived", { item, isOpen, isNew });
});

document.addEventListener("stream:recovered", ({ detail }) => {
  if (list()) place(fromHtml(detail.html));
});

/** Put one item where it belongs. False if it stood there already and was only drawn anew. */
export function place(item) {
  const messages = list();
  const twin = find(messages, item);
  keepPlace(
    () => {
      if (twin) twin.replaceWith(item.querySelector(".step") || item);
      else {
        document.getElementById("introduction")?.remove();
        document.getElementById("delete-open")?.removeAttribute("hidden");
        messages.insertBefore(item, following(messages, item.dataset.order));
      }
      if (!twin) settle(messages, item);
    },
    { isNews: !twin && item.dataset.kind !== "own" },
  );
  emit("messages:changed");
  return !twin;
}

/** Put the bubble of a message that the server has taken in the place of the one that waited for it. */
export function confirm(item) {
  const waiting = document.getElementById(item.id);
  if (waiting && PENDING.has(waiting.dataset.state)) place(item);
}

function find(messages, item) {
  const id = (item.querySelector(".step") || item).id;
  const twin = id && document.getElementById(id);
  return twin && messages.contains(twin) ? twin : null;
}

/** The item before which `order` comes. Bubbles on their way have no order yet and are passed over. */
function following(messages, order) {
  let found = null;
  if (!order) return found;
  const placed = messages.querySelectorAll(":scope > [data-at]");
  for (let index = placed.length - 1; index >= 0; index -= 1) {
    const other = placed[index].dataset.order;
    if (other && other <= order) return found;
    if (other) found = placed[index];
  }
  return found;
}

function settle(messages, item) {
  days.clear(messages);
  steps.join(messages);
  days.draw(messages);
  if (item.dataset.kind === "steps") steps.keepWatch(messages);
  if (item.dataset.kind === "answer") {
    steps.fold(messages);
    announce(item);
  }
}

function announce(item) {
  const author = item.querySelector(".author").textContent;
  const text = item.querySelector("[data-prose]")?.textContent.trim() ?? "";
  document.getElementById("announcer").textContent = `${author}: ${text.slice(0, ANNOUNCED)}`;
}

/** What the stream had brought already may come again with the earlier messages: each stands once. */
function single(messages) {
  const seen = new Set();
  for (const item of messages.querySelectorAll(":scope > [id]")) {
    if (seen.has(item.id)) item.remove();
    else seen.add(item.id);
  }
}

/** History that was loaded as a whole, or put on top: neighbours join, days are the reader's. */
export function tidy() {
  const messages = list();
  if (!messages) return;
  single(messages);
  days.clear(messages);
  steps.join(messages);
  days.draw(messages);
  if (messages.querySelector("[data-working]")) steps.keepWatch(messages);
  emit("messages:changed");
}

/** Put what arrived while the messages were on their way beside them. */
function complete() {
  const key = document.getElementById("thread")?.dataset.topicKey;
  for (const item of meanwhile.map(fromHtml)) {
    if (list() && item.dataset.topic === key && !find(list(), item)) place(item);
  }
  meanwhile = [];
}

function asked({ detail }) {
  if (["thread-stage", "messages"].includes(detail.target?.id)) meanwhile = [];
}

document.addEventListener("htmx:beforeRequest", asked);
document.addEventListener("htmx:historyCacheMiss", () => (meanwhile = []));
document.addEventListener("thread:shown", tidy);
document.addEventListener("thread:shown", complete);
document.addEventListener("thread:extended", tidy);
