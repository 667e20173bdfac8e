// The way to the sign-in and back to where the person is now.

export const here = () => location.pathname + location.search;

export function signIn(loginUrl = "/login/") {
  location.assign(`${loginUrl}?${new URLSearchParams({ next: here() })}`);
}
