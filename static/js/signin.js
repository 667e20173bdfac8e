// The ways to the sign-in and to the waiting room, and back to where the person is now; and what is left of a page
// whose reader has lost access.

const LOOP_SECONDS = 5;

let isLeaving = false; // going twice would break off the first time
addEventListener("pageshow", () => (isLeaving = false));

export const here = () => location.pathname + location.search;

function leave(url) {
  if (isLeaving) return;
  isLeaving = true;
  location.assign(url);
}

export function signIn(loginUrl = "/login/") {
  leave(`${loginUrl}?${new URLSearchParams({ next: here() })}`);
}

/** What is shown is no longer theirs to see. The server says so in its own words, unless it has only just drawn this. */
function forget() {
  for (const id of ["sidebar", "thread-stage", "toasts"]) document.getElementById(id)?.replaceChildren();
  document.title = "No access";
  if (performance.now() > LOOP_SECONDS * 1000) location.reload();
}

/** The states of a stream in which the page can't stay: it goes elsewhere and comes back later, or is no longer theirs. */
export function leaveFor(state, settings, code) {
  if (state === "signed-out") signIn(settings.loginUrl);
  else if (state === "unavailable")
    leave(`${settings.unavailableUrl}?${new URLSearchParams({ returnUrl: here(), error: code })}`);
  else if (state === "no-access") forget();
}
