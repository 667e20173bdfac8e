// The ways to the sign-in and to the waiting room, and back to where the person is now.

export const here = () => location.pathname + location.search;

export function signIn(loginUrl = "/login/") {
  location.assign(`${loginUrl}?${new URLSearchParams({ next: here() })}`);
}

/** The two states of a stream in which the page goes elsewhere, and comes back here later. */
export function leaveFor(state, settings, code) {
  if (state === "signed-out") signIn(settings.loginUrl);
  else if (state === "unavailable")
    location.assign(`${settings.unavailableUrl}?${new URLSearchParams({ returnUrl: here(), error: code })}`);
}
