// The list of topics: which one is open, what has just moved, and fetching the list anew when it no longer fits.

import { emit } from "./fragment.js";

const PAUSE_SECONDS = 2;
let timer = 0;
let isWaiting = false;

const root = document.getElementById("conversation");
const thread = () => document.getElementById("thread");

function mark() {
  const key = thread()?.dataset.topicKey;
  let isListed = false;
  for (const row of document.querySelectorAll(".topic")) {
    const isOpen = row.dataset.topic === key;
    isListed ||= isOpen;
    if (isOpen) row.setAttribute("aria-current", "page");
    else row.removeAttribute("aria-current");
  }
  if (!isListed && key && isFirstPage()) emit("topics:outdated");
}

const isFirstPage = () => document.getElementById("topics").dataset.page === "1";

/** Fetch the list, at once and then at most every two seconds, however often it is asked for. */
function refresh() {
  if (timer) {
    isWaiting = true;
    return;
  }
  const url = new URL(root.dataset.topicsUrl, location.href);
  url.searchParams.set("topic", thread()?.dataset.topic || "");
  // A list that can't be fetched stays as it is: the connection chip says that the server is away.
  window.htmx.ajax("GET", url.pathname + url.search, { target: "#topics", swap: "outerHTML" }).catch(() => {});
  timer = setTimeout(() => {
    timer = 0;
    if (isWaiting) refresh();
    isWaiting = false;
  }, PAUSE_SECONDS * 1000);
}

/** A message makes its topic the newest: right below General, which stays first. */
function promote({ detail: { item, isOpen, isNew } }) {
  const row = document.getElementById(`topic-${item.dataset.topic}`);
  const time = row?.querySelector("time");
  if (!time) {
    if (isFirstPage()) emit("topics:outdated");
    return;
  }
  if (isOpen && !isNew) return;
  if (Date.parse(item.dataset.at) <= Date.parse(time.dateTime)) return; // a replay: the list has counted it
  time.dateTime = item.dataset.at;
  const number = row.querySelector("[data-messages]");
  if (number) {
    number.textContent = Number(number.textContent) + 1;
    row.querySelector("[data-plural]").hidden = false;
  }
  const general = row.closest("ul").firstElementChild;
  if (isFirstPage() && row.parentElement !== general) general.after(row.parentElement);
  emit("times:changed");
}

document.addEventListener("message:arrived", promote);
document.addEventListener("topics:outdated", refresh);
document.addEventListener("topics-changed", refresh);
for (const event of ["stream:anew", "stream:resync", "stream:gone"]) document.addEventListener(event, refresh);
document.addEventListener("thread:shown", mark);
document.addEventListener("topics:shown", mark);
