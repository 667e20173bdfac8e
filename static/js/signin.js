// The ways to the sign-in and to the waiting room, and back to where the person is now.

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

/** The two states of a stream in which the page goes elsewhere, and comes back here later. */
export function leaveFor(state, settings, code) {
  if (state === "signed-out") signIn(settings.loginUrl);
  else if (state === "unavailable")
    leave(`${settings.unavailableUrl}?${new URLSearchParams({ returnUrl: here(), error: code })}`);
}
