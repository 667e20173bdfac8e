// The date lines. The server draws them for UTC; here they move to where the reader's own day changes.

import { fromTemplate } from "./fragment.js";
import { language } from "./times.js";

const full = new Intl.DateTimeFormat(language, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
const near = new Intl.RelativeTimeFormat(language, { numeric: "auto" });

export function clear(list) {
  for (const line of list.querySelectorAll(":scope > .day")) line.remove();
}

export function draw(list) {
  clear(list);
  let last = "";
  for (const item of list.querySelectorAll(":scope > [data-at]")) {
    const at = new Date(item.dataset.at);
    const day = at.toDateString();
    if (day !== last) item.before(line(at));
    last = day;
  }
}

function line(at) {
  const item = fromTemplate("day-template");
  const time = item.querySelector("time");
  time.dateTime = `${at.getFullYear()}-${String(at.getMonth() + 1).padStart(2, "0")}-${String(at.getDate()).padStart(2, "0")}`;
  time.textContent = words(at);
  return item;
}

function words(at) {
  const days = Math.round((midnight(at) - midnight(new Date())) / 86_400_000);
  if (days === 0 || days === -1) {
    const name = near.format(days, "day");
    return name.charAt(0).toUpperCase() + name.slice(1);
  }
  return full.format(at);
}

function midnight(at) {
  return new Date(at.getFullYear(), at.getMonth(), at.getDate());
}
