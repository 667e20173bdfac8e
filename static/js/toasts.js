// News from topics that are not open: one toast a topic, counting up, gone when the topic is read anywhere.

import { fromHtml } from "./fragment.js";

const SECONDS = 8;
const MOST = 3;
const timers = new Map();

const box = document.getElementById("toasts");
const openKey = () => document.getElementById("thread")?.dataset.topicKey;

document.addEventListener("stream:toast", ({ detail }) => {
  const toast = fromHtml(detail.html);
  if (toast.dataset.topic === openKey()) return;
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
});

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

document.addEventListener("stream:unread", ({ detail }) => {
  if (detail.unreadCount === 0) drop(document.getElementById(`toast-${detail.topicKey}`));
});
document.addEventListener("thread:shown", () => drop(document.getElementById(`toast-${openKey()}`)));
document.addEventListener("keydown", (event) => event.key === "Escape" && drop(box.lastElementChild));
