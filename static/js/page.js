// What every page of a signed-in person does: menus that close, requests that carry the CSRF token, forms that wait.

import { emit, ownHeaders } from "./fragment.js";
import { signIn } from "./signin.js";

document.addEventListener("htmx:configRequest", ({ detail }) => {
  detail.headers["X-CSRFToken"] = ownHeaders()["X-CSRFToken"];
});

// A region that looks after itself does so only while somebody looks at it.
document.addEventListener("htmx:beforeRequest", (event) => {
  if ("quiet" in event.target.dataset && document.hidden) event.preventDefault();
});
document.addEventListener("visibilitychange", () => document.hidden || emit("look-again"));

// What was typed into a search before anybody listened is looked for, too.
document.addEventListener("htmx:load", ({ target }) => {
  for (const field of target.querySelectorAll("input[type=search]")) {
    if (field.value !== field.defaultValue) window.htmx.trigger(field.form, "submit");
  }
});

// A sign-in that has ended must not be swapped into a region: go there, and come back here.
document.addEventListener("htmx:beforeOnLoad", (event) => {
  const { xhr } = event.detail;
  const isSignIn = xhr.status === 401 || new URL(xhr.responseURL || location.href).pathname.startsWith("/login");
  if (!isSignIn) return;
  event.preventDefault();
  signIn();
});

// A refusal takes the place of a topic that somebody opens, never of the messages or of a list, and never by itself: then
// all stays as it is.
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  const isAskedFor = detail.target.id === "thread-stage" && detail.requestConfig.triggeringEvent;
  if (detail.xhr.status >= 400 && !isAskedFor) detail.shouldSwap = false;
});

// What could not be loaded as a part is loaded as a page, which says what is wrong.
document.addEventListener("htmx:responseError", ({ detail }) => {
  const link = detail.elt.getAttribute("href");
  if (link) location.assign(link);
  else if (detail.xhr.status === 403 && detail.requestConfig.verb === "get") location.reload(); // no longer theirs
});

document.addEventListener("click", ({ target }) => {
  for (const menu of document.querySelectorAll("[data-menu][open]")) if (!menu.contains(target)) menu.open = false;
  const opener = target.closest("[commandfor]");
  if (opener && !("command" in HTMLButtonElement.prototype)) document.getElementById(opener.getAttribute("commandfor")).showModal();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("[data-menu][open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

document.addEventListener("submit", ({ target }) => {
  if ("busy" in target.dataset) {
    target.querySelector("button").disabled = true;
    target.querySelector("[data-idle]").hidden = true;
    target.querySelector("[data-busy-text]").hidden = false;
  }
  if ("forgetDrafts" in target.dataset) {
    const kept = Object.keys(localStorage).filter((name) => /^(draft|outbox):/.test(name));
    for (const name of kept) localStorage.removeItem(name);
  }
});
