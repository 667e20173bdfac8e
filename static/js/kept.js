// What the browser keeps for a person until the server has it: typed text by topic, and messages on their way.
// Filed under the person and the conversation (data-draft-key), so that nobody else's text ever appears.

const root = document.getElementById("conversation");
const draftName = (topicKey) => `draft:${root.dataset.draftKey}:${topicKey}`;
const outboxName = `outbox:${root.dataset.draftKey}`;

export const draft = (topicKey) => recall(draftName(topicKey)) || "";

export function keepDraft(topicKey, text) {
  keep(draftName(topicKey), text);
}

/** Messages not yet taken by the server: {requestId, text, topic, topicKey, at}. */
export function outbox() {
  try {
    return JSON.parse(recall(outboxName) || "[]");
  } catch {
    return [];
  }
}

export function addToOutbox(entry) {
  keep(outboxName, JSON.stringify([...outbox().filter((other) => other.requestId !== entry.requestId), entry]));
}

export function removeFromOutbox(requestId) {
  const all = outbox();
  const left = all.filter((entry) => entry.requestId !== requestId);
  if (left.length < all.length) keep(outboxName, left.length ? JSON.stringify(left) : "");
}

function recall(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // storage is switched off: the page works, it forgets
  }
}

function keep(name, text) {
  try {
    if (text) localStorage.setItem(name, text);
    else localStorage.removeItem(name);
  } catch {
    /* full or switched off: as above */
  }
}
