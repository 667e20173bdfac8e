// The composer: Enter sends, Shift+Enter breaks the line, and what is typed is kept by topic until it is sent.

import { draft, keepDraft } from "./kept.js";
import { post } from "./outbox.js";
import { toNewest } from "./scroll.js";

const field = () => document.getElementById("text");
const thread = () => document.getElementById("thread");

function fill(text) {
  const box = field();
  if (!box) return;
  box.value = text;
  keepDraft(thread().dataset.topicKey, text);
  fit(box);
}

/** Browsers that can't size a field by its content (field-sizing) are helped. */
function fit(box) {
  if (CSS.supports("field-sizing", "content")) return;
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
}

function submit(form) {
  const text = field().value;
  if (!text.trim()) return;
  const { topic, topicKey } = thread().dataset;
  fill("");
  toNewest();
  post({ requestId: newId(), text, topic, topicKey, at: new Date().toISOString(), url: form.getAttribute("action") });
}

/** A random UUID, also where the page isn't served over HTTPS and crypto.randomUUID is missing. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

document.addEventListener("submit", (event) => {
  if (event.target.id !== "composer") return;
  event.preventDefault();
  submit(event.target);
});

document.addEventListener("keydown", (event) => {
  if (event.target.id !== "text" || event.key !== "Enter" || event.shiftKey) return;
  if (event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  event.target.form.requestSubmit();
});

document.addEventListener("input", ({ target }) => {
  if (target.id !== "text") return;
  keepDraft(thread().dataset.topicKey, target.value);
  fit(target);
});

document.addEventListener("click", ({ target }) => {
  const prompt = target.closest("[data-prompt]");
  if (!prompt) return;
  fill(prompt.dataset.prompt);
  field()?.focus();
});

document.addEventListener("composer:fill", ({ detail }) => {
  fill(field()?.value ? `${detail.text}\n${field().value}` : detail.text);
  field()?.focus();
});

document.addEventListener("thread:shown", () => {
  const box = field();
  if (!box) return;
  box.required = false; // an empty field is simply not sent
  if (!box.value) fill(draft(thread().dataset.topicKey));
  if (matchMedia("(pointer: fine)").matches) box.focus({ preventScroll: true });
});
