// Copying an answer's text. The buttons show only where the browser can copy.

function reveal() {
  if (!navigator.clipboard) return;
  for (const button of document.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
}

document.addEventListener("click", async ({ target }) => {
  const button = target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.closest(".message").querySelector("[data-prose]").innerText.trim());
  document.getElementById("announcer").textContent = "Copied";
  const use = button.querySelector("use");
  const icon = use.getAttribute("href");
  use.setAttribute("href", icon.replace("#copy", "#tick"));
  setTimeout(() => use.setAttribute("href", icon.replace("#tick", "#copy")), 1500);
});

for (const event of ["thread:shown", "messages:changed"]) document.addEventListener(event, reveal);
