// Groups of steps: neighbours join, an answer folds them, and an agent that says nothing for long isn't working.

const WORKING_SECONDS = 120;
let idle = 0;

/** Join every group with the group before it, as the server does for the history. */
export function join(list) {
  for (const group of list.querySelectorAll(".steps-item + .steps-item")) {
    const before = group.previousElementSibling;
    const steps = before.querySelector(".steps-list");
    steps.append(...group.querySelectorAll(".step"));
    const details = before.querySelector(".steps");
    if (group.querySelector("[data-working]")) {
      details.dataset.working = "";
      details.open = true;
    }
    group.remove();
    count(before);
    steps.scrollTop = steps.scrollHeight;
  }
}

function count(group) {
  const steps = group.querySelectorAll(".step").length;
  group.querySelector("[data-count]").textContent = steps;
  group.querySelector("[data-one]").hidden = steps !== 1;
  group.querySelector("[data-many]").hidden = steps === 1;
}

/** The work is done: fold what was open only because it went on. */
export function fold(list) {
  for (const details of list.querySelectorAll(".steps[data-working]")) {
    delete details.dataset.working;
    details.open = false;
  }
}

export function keepWatch(list) {
  clearTimeout(idle);
  idle = setTimeout(() => fold(list), WORKING_SECONDS * 1000);
}
