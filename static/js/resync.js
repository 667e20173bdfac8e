// What the stream can't bring. `stream:anew`: this tab has missed something that is still to be had, so the open topic
// is fetched as it is now. `stream:resync`: the server can't say what was missed; then a line asks for a reload, too,
// and stays until then. `stream:gone`: a topic's messages were deleted.

import { emit } from "./fragment.js";

const thread = () => document.getElementById("thread");
const line = (name) => document.getElementById(`${name}-line`);

async function fetchAnew() {
  if (!document.getElementById("messages")) return;
  const swapped = window.htmx.ajax("GET", thread().dataset.pageUrl, { target: "#messages", select: "#messages", swap: "outerHTML" });
  await swapped.then(() => emit("thread:shown"), () => {}); // without an answer what is shown stays shown
}

document.addEventListener("stream:anew", fetchAnew);
document.addEventListener("stream:resync", () => {
  line("resync").hidden = false;
  fetchAnew();
});
document.addEventListener("stream:gone", async ({ detail }) => {
  const isOpen = thread()?.dataset.topicKey === detail.topicKey;
  if (!isOpen || document.getElementById("delete-dialog")?.open) return; // or it is being deleted right here
  await window.htmx.ajax("GET", thread().dataset.pageUrl, { target: "#thread-stage" }).catch(() => {});
  line("gone").hidden = false;
});
document.addEventListener("htmx:afterSwap", ({ detail }) => {
  if (detail.target?.id === "thread-stage") line("gone").hidden = true;
});
document.addEventListener("click", ({ target }) => target.closest("[data-reload]") && location.reload());
