// Times of day in the reader's own zone and manner, and distances in time that stay right.

/** Dates are in the page's own language, in the reader's variety of it if they have one. */
export const language = /^en\b/.test(navigator.language) ? navigator.language : document.documentElement.lang;

const clock = new Intl.DateTimeFormat(navigator.language || undefined, { hour: "2-digit", minute: "2-digit" });
const moment = new Intl.DateTimeFormat(language, { dateStyle: "full", timeStyle: "short" });
const thisYear = new Intl.DateTimeFormat(language, { day: "numeric", month: "short" });
const anyYear = new Intl.DateTimeFormat(language, { day: "numeric", month: "short", year: "numeric" });

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

function distance(at) {
  const seconds = (Date.now() - at) / 1000;
  if (seconds < MINUTE) return "now";
  if (seconds < HOUR) return `${Math.floor(seconds / MINUTE)}m`;
  if (seconds < DAY) return `${Math.floor(seconds / HOUR)}h`;
  if (seconds < 7 * DAY) return `${Math.floor(seconds / DAY)}d`;
  return (at.getFullYear() === new Date().getFullYear() ? thisYear : anyYear).format(at);
}

function write(time, text, at) {
  if (time.textContent === text) return;
  time.textContent = text;
  time.title = moment.format(at);
}

function draw() {
  for (const time of document.querySelectorAll("time[data-time], time[data-relative]")) {
    const at = new Date(time.dateTime);
    write(time, "time" in time.dataset ? clock.format(at) : distance(at), at);
  }
}

for (const event of ["messages:changed", "times:changed", "topics:shown", "thread:shown", "visibilitychange"]) {
  document.addEventListener(event, draw);
}
setInterval(draw, 30_000);
draw();
