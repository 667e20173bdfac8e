// Unread counts: beside the topics, in the tab's title, and as a dot where the topics are folded away.

import { emit } from "./fragment.js";

const CAP = 99;
const counts = new Map();
let total = Number(document.getElementById("conversation").dataset.totalUnread) || 0;

const openKey = () => document.getElementById("thread")?.dataset.topicKey;

export const unreadOf = (key) => counts.get(key) || 0;

document.addEventListener("stream:unread", ({ detail }) => {
  total = detail.total;
  counts.set(detail.topicKey, detail.unreadCount);
  const row = document.getElementById(`topic-${detail.topicKey}`);
  if (row) draw(row, detail.unreadCount);
  else if (detail.unreadCount) emit("topics:outdated");
  summarise();
});

// What changed while there was no stream: counts that aren't named are zero.
document.addEventListener("stream:counts", ({ detail }) => {
  total = detail.total;
  counts.clear();
  for (const row of document.querySelectorAll(".topic")) counts.set(row.dataset.topic, 0);
  for (const [key, count] of Object.entries(detail.counts)) {
    counts.set(key, count);
    if (!document.getElementById(`topic-${key}`)) emit("topics:outdated");
  }
  recount();
});

function draw(row, count) {
  const badge = row.querySelector("[data-badge]");
  badge.dataset.badge = count;
  badge.hidden = count === 0;
  badge.querySelector("[data-number]").textContent = count > CAP ? `${CAP}+` : count;
}

/** What is being looked at isn't news. */
function summarise() {
  const seen = document.hidden ? 0 : unreadOf(openKey());
  const elsewhere = Math.max(total - seen, 0);
  const plain = document.title.replace(/^\(\d+\+?\) /, "");
  document.title = elsewhere ? `(${elsewhere > CAP ? `${CAP}+` : elsewhere}) ${plain}` : plain;
  document.querySelector("[data-elsewhere]").hidden = elsewhere === 0;
}

function recount() {
  for (const row of document.querySelectorAll(".topic")) {
    if (!counts.has(row.dataset.topic)) counts.set(row.dataset.topic, Number(row.querySelector("[data-badge]").dataset.badge));
    else draw(row, counts.get(row.dataset.topic));
  }
  summarise();
}

for (const event of ["thread:shown", "topics:shown", "visibilitychange"]) document.addEventListener(event, recount);
