// The connection chip, and the one sentence that goes with a refusal.

import { showState } from "./fragment.js";

document.addEventListener("stream:state", ({ detail }) => {
  const chip = document.getElementById("connection");
  chip.dataset.state = detail.state;
  chip.querySelector("[data-attempt]").textContent = detail.attempt;
  showState(chip, detail.state);
  const notice = document.getElementById("connection-notice");
  notice.textContent = detail.sentence || "";
  notice.hidden = !detail.sentence;
});
