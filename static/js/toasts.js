// News from topics that are not open: one toast a topic, counting up, gone when the topic is read anywhere. A stream that
// begins anew may bring the last minute twice, so a toast is shown only for what is newer than the page, was not brought
// before, and is counted as unread: while its count isn't known yet, it waits for that.

import { unreadOf } from "./badges.js";
import { fromHtml } from "./fragment.js";

const SECONDS = 8;
const MOST = 3;
const COUNTED_WITHIN_SECONDS = 10;
const REMEMBERED = 1000;
const timers = new Map();
const waiting = new Map();
const brought = new Set();

const box = document.getElementById("toasts");
const openKey = () => document.getElementById("thread")?.dataset.topicKey;
const moment = (order) => order.split("-")[0];
const drawnAt = moment(document.getElementById("conversation").dataset.newest);

document.addEventListener("stream:toast", ({ detail }) => {
  const toast = fromHtml(detail.html);
  const { topic, order } = toast.dataset;
  if (!isNews(order) || topic === openKey()) return;
  if (unreadOf(topic)) show(toast);
  else waiting.set(topic, [...(waiting.get(topic) || []), { toast, until: Date.now() + COUNTED_WITHIN_SECONDS * 1000 }]);
});

function isNews(order) {
  if (moment(order) <= drawnAt || brought.has(order)) return false;
  brought.add(order);
  if (brought.size > REMEMBERED) brought.delete(brought.values().next().value);
  return true;
}

function show(toast) {
  const before = document.getElementById(toast.id);
  const count = before ? Number(before.querySelector("[data-count]").textContent) + 1 : 1;
  const badge = toast.querySelector("[data-count]");
  badge.textContent = count;
  badge.hidden = count === 1;
  before?.remove();
  box.append(toast);
  window.htmx.process(toast);
  while (box.children.length > MOST) drop(box.firstElementChild);
  linger(toast);
}

function linger(toast) {
  clearTimeout(timers.get(toast.id));
  timers.set(toast.id, setTimeout(() => (toast.matches(":hover, :focus") ? linger(toast) : drop(toast)), SECONDS * 1000));
}

function drop(toast) {
  if (!toast) return;
  clearTimeout(timers.get(toast.id));
  timers.delete(toast.id);
  toast.remove();
}

/** The count of a topic is known: it has news, or none any more. */
function settle(key) {
  const due = waiting.get(key) || [];
  waiting.delete(key);
  if (!unreadOf(key)) drop(document.getElementById(`toast-${key}`));
  else for (const { toast, until } of due) if (Date.now() < until) show(toast);
}

document.addEventListener("stream:unread", ({ detail }) => settle(detail.topicKey));
document.addEventListener("stream:counts", () => {
  for (const key of [...waiting.keys(), ...[...box.children].map((toast) => toast.dataset.topic)]) settle(key);
});
document.addEventListener("thread:shown", () => {
  waiting.delete(openKey());
  drop(document.getElementById(`toast-${openKey()}`));
});
document.addEventListener("keydown", (event) => event.key === "Escape" && drop(box.lastElementChild));
