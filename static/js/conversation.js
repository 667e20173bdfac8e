// The conversation page. Its modules know each other by the events they send over `document`:
//   stream:*          what the stream says (stream.js)
//   thread:shown      a topic is on the page: at the start, after a switch, after a resync
//   thread:extended   earlier messages were put on top
//   topics:shown      the list of topics was drawn anew; topics:outdated asks for that
//   message:arrived   one message came, for any topic; messages:changed: the open topic looks different now

import "./badges.js";
import "./composer.js";
import "./connection.js";
import "./copy.js";
import "./messages.js";
import "./read.js";
import "./resync.js";
import "./toasts.js";
import "./topics.js";
import "./typing.js";
import { emit } from "./fragment.js";
import { listen } from "./tabs.js";

document.addEventListener("htmx:afterSwap", ({ detail }) => {
  const swapped = detail.target?.id; // none when htmx goes back in the history
  if (swapped === "thread-stage") shown();
  else if (swapped === "earlier") emit("thread:extended");
  else if (swapped === "topics") emit("topics:shown");
});
document.addEventListener("htmx:historyRestore", () => emit("thread:shown"));

function shown() {
  const sidebar = document.getElementById("sidebar");
  if (sidebar.matches(":popover-open")) sidebar.hidePopover();
  const newTopic = document.getElementById("new-topic");
  if (newTopic?.open) {
    newTopic.querySelector("form").reset();
    newTopic.open = false;
  }
  emit("thread:shown");
}

emit("thread:shown");
listen(document.getElementById("conversation").dataset);
