// Sticking to the newest message, and staying put for whoever reads further up. The scroller is laid out from its
// bottom (column-reverse): 0 is the newest message, and earlier ones that are put on top move nothing.

import { showState } from "./fragment.js";

const NEAR = 80;
const FAR = 400;

const scroller = () => document.getElementById("scroller");
const pill = () => document.getElementById("pill");

export function toNewest() {
  const box = scroller();
  if (!box) return;
  box.scrollTop = 0;
  update();
}

/** Make a change at the end of the thread without moving what somebody reads further up. */
export function keepPlace(change, { isNews = false } = {}) {
  const box = scroller();
  const top = box.scrollTop;
  const height = box.scrollHeight;
  change();
  if (top > -NEAR) box.scrollTop = 0;
  else {
    box.scrollTop = top - (box.scrollHeight - height);
    if (isNews) pill().dataset.new = "";
  }
  update();
}

function update() {
  const box = scroller();
  const button = pill();
  if (!box || !button) return;
  if (box.scrollTop > -NEAR) delete button.dataset.new;
  button.hidden = box.scrollTop > -FAR && !("new" in button.dataset);
  showState(button, "new" in button.dataset ? "new" : "away");
}

document.addEventListener("scroll", (event) => event.target.id === "scroller" && update(), { capture: true, passive: true });
document.addEventListener("thread:shown", toNewest);
document.addEventListener("click", (event) => {
  if (!event.target.closest("#pill")) return;
  toNewest();
  document.getElementById("text")?.focus({ preventScroll: true });
});
