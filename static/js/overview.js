// Keeps an overview right: whenever a count of this person changes, anywhere, the page looks again. Of all overviews in
// this browser the one that holds a Web Lock has the stream, and tells the others (as in tabs.js).

import { emit } from "./fragment.js";

const PAUSE_MS = 300;
const RETRY_MS = 10_000;
const NAME = "overview";
let pause = 0;

function lookAgain() {
  pause ||= setTimeout(() => {
    pause = 0;
    emit("look-again");
  }, PAUSE_MS);
}

function listen(tellOthers, giveUp) {
  const source = new EventSource(document.querySelector("[data-overview-url]").dataset.overviewUrl);
  source.addEventListener("unread", () => {
    lookAgain();
    tellOthers();
  });
  source.addEventListener("error", () => source.readyState === EventSource.CLOSED && giveUp());
  addEventListener("pagehide", () => {
    source.close();
    giveUp();
  });
}

/** Listen as soon as no other overview does. A stream that was refused is tried again, here or in another tab. */
function takeTurns(channel) {
  const lead = () => new Promise((release) => listen(() => channel.postMessage(""), release));
  navigator.locks.request(NAME, lead).then(() => setTimeout(() => takeTurns(channel), RETRY_MS));
}

if (navigator.locks && "BroadcastChannel" in window) {
  const channel = new BroadcastChannel(NAME);
  channel.addEventListener("message", lookAgain);
  takeTurns(channel);
} else listen(() => {}, () => {});
addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
