// "… is working on it": from when a message has been sent until the first sign of the agent's work, or until it has
// been quiet for long. A quick agent's answer may be here before we hear that its question was sent.

import { keepPlace } from "./scroll.js";

const SECONDS = 120;
let timer = 0;
let isAnswered = false;

function show(isShown) {
  const line = document.getElementById("typing");
  clearTimeout(timer);
  if (!line) return;
  if (line.hidden === isShown) keepPlace(() => (line.hidden = !isShown));
  if (isShown) timer = setTimeout(() => show(false), SECONDS * 1000);
}

document.addEventListener("outbox:sending", () => (isAnswered = false));
document.addEventListener("outbox:sent", () => show(!isAnswered));
document.addEventListener("outbox:failed", () => show(false));
document.addEventListener("message:arrived", ({ detail: { item, isOpen } }) => {
  if (!isOpen || item.dataset.kind === "own") return;
  isAnswered = true;
  show(false);
});
