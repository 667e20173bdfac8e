// The connection chip, and the one sentence that goes with a refusal.

import { showState } from "./fragment.js";

let timer = 0;

/** Count the seconds down; for the eyes only, or a screen reader would say each of them. */
function countDown(place, seconds) {
  clearTimeout(timer);
  const left = Math.ceil(seconds);
  place.textContent = left > 0 ? ` · ${left} s` : "";
  if (left > 0) timer = setTimeout(() => countDown(place, left - 1), 1000);
}

document.addEventListener("stream:state", ({ detail }) => {
  const chip = document.getElementById("connection");
  chip.dataset.state = detail.state;
  chip.querySelector("[data-attempt]").textContent = detail.attempt;
  countDown(chip.querySelector("[data-seconds]"), detail.seconds || 0);
  showState(chip, detail.state);
  const notice = document.getElementById("connection-notice");
  notice.textContent = detail.sentence || "";
  notice.hidden = !detail.sentence;
});
