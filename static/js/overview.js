// Keeps an overview right: whenever a count of this person changes, anywhere, the page looks again.

import { emit } from "./fragment.js";

const PAUSE_MS = 300;
let pause = 0;

const source = new EventSource(document.querySelector("[data-overview-url]").dataset.overviewUrl);
source.addEventListener("unread", () => {
  pause ||= setTimeout(() => {
    pause = 0;
    emit("look-again");
  }, PAUSE_MS);
});
addEventListener("pagehide", () => source.close());
addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
