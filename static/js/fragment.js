// HTML that the server has drawn, as elements; and the parts of an element that belong to one of its states.

/** The first element of a piece of HTML. Scripts in it never run: it is parsed inside a template. */
export function fromHtml(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
}

/** A copy of the one element inside a <template> of the page. */
export function fromTemplate(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

/** Of everything inside `element` that belongs to a state (data-when), show what belongs to this one. */
export function showState(element, state) {
  for (const part of element.querySelectorAll("[data-when]")) part.hidden = part.dataset.when !== state;
}

/** The headers of a request that one of our own scripts makes. */
export function ownHeaders() {
  const token = document.querySelector("meta[name=csrf-token]");
  return { "X-CSRFToken": token ? token.content : "", "X-Requested-With": "fetch" };
}

export function emit(name, detail = {}) {
  document.dispatchEvent(new CustomEvent(name, { detail }));
}
