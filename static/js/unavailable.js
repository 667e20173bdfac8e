// The waiting room: look whether the server is ready, seldom and only while somebody waits here, and go back when it is.

import { showState } from "./fragment.js";

const FIRST = 5;
const LONGEST = 60;
const GROWTH = 1.4;
const JITTER = 0.2;
const ROUND_SECONDS = 10; // going back and being sent here again: never faster than this
const RETURNED_AT = "unavailable:returned-at";

const card = document.getElementById("unavailable");
const state = document.getElementById("probe-state");
let wait = FIRST;
let timer = 0;
let checks = 0;
let isChecking = false;
let isGoing = false;

function schedule(seconds) {
  clearTimeout(timer);
  if (!document.hidden && !isGoing) timer = setTimeout(check, seconds * 1000 * (1 + Math.random() * JITTER));
}

async function check() {
  if (isChecking || isGoing || document.hidden) return;
  isChecking = true;
  clearTimeout(timer);
  showState(state, "checking");
  document.getElementById("probe-count").textContent = checks += 1;
  const isReady = await probe();
  isChecking = false;
  if (isReady) return goBack();
  showState(state, navigator.onLine ? "waiting" : "offline");
  schedule(wait);
  wait = Math.min(wait * GROWTH, LONGEST);
}

async function probe() {
  try {
    const response = await fetch(card.dataset.readyUrl, { cache: "no-store", signal: AbortSignal.timeout(5000) });
    return response.ok;
  } catch {
    return false;
  }
}

function goBack() {
  isGoing = true;
  showState(state, "back");
  const rest = ROUND_SECONDS * 1000 - (Date.now() - Number(recall() || 0));
  setTimeout(() => {
    remember();
    location.replace(card.dataset.returnUrl);
  }, Math.min(Math.max(rest, 300), ROUND_SECONDS * 1000));
}

function recall() {
  try {
    return sessionStorage.getItem(RETURNED_AT);
  } catch {
    return 0;
  }
}

function remember() {
  try {
    sessionStorage.setItem(RETURNED_AT, String(Date.now()));
  } catch {
    /* without storage there is no round to count */
  }
}

addEventListener("online", check);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : check()));
addEventListener("pageshow", (event) => {
  if (event.persisted) isGoing = false;
  schedule(event.persisted ? 0 : FIRST);
});
