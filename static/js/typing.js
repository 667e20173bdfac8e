// "… is working on it": from sending until the first sign of the agent's work, or until it has been quiet for long.

import { keepPlace } from "./scroll.js";

const SECONDS = 120;
let timer = 0;

function show(isShown) {
  const line = document.getElementById("typing");
  clearTimeout(timer);
  if (!line) return;
  if (line.hidden === isShown) keepPlace(() => (line.hidden = !isShown));
  if (isShown) timer = setTimeout(() => show(false), SECONDS * 1000);
}

document.addEventListener("composer:sent", () => show(true));
document.addEventListener("outbox:failed", () => show(false));
document.addEventListener("message:arrived", ({ detail: { item, isOpen } }) => {
  if (isOpen && item.dataset.kind !== "own") show(false);
});
