// What every page has: the theme switch, lists that look for news, values that can be copied.

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-theme-switch]")) switchTheme();
  const copy = event.target.closest("[data-copy]");
  if (copy) copyText(copy.dataset.copy, copy);
});

function switchTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  try { localStorage.setItem("kairos-theme", root.dataset.theme); } catch { /* forgotten at the next page */ }
  document.dispatchEvent(new CustomEvent("kairos:theme"));
}

export async function copyText(text, near) {
  try {
    await navigator.clipboard.writeText(text);
    near?.classList.add("copied");
    setTimeout(() => near?.classList.remove("copied"), 1200);
  } catch { /* no right to the clipboard: the text can still be selected */ }
}

// A page that is left ends what it has asked for. That is no error, and nobody is there to be told.
let isLeaving = false;
addEventListener("beforeunload", () => {
  isLeaving = true;
  setTimeout(() => { isLeaving = false; }, 2000);  // it was a download, or somebody stayed
});
addEventListener("pagehide", () => { isLeaving = true; });
addEventListener("pageshow", () => { isLeaving = false; });
document.addEventListener("htmx:beforeSend", ({ detail: { xhr } }) => {
  for (const name of ["onabort", "onerror"]) {
    const tell = xhr[name];
    xhr[name] = (event) => { if (!isLeaving) tell?.call(xhr, event); };
  }
});

// Lists ask again every few seconds, as long as somebody can see them.
for (const element of document.querySelectorAll("[data-poll]")) {
  setInterval(() => {
    if (document.visibilityState === "visible" && window.htmx) window.htmx.trigger(element, "kairos:tick");
  }, 1000 * Number(element.dataset.poll));
}

// A morph must not close what was opened by hand.
addEventListener("DOMContentLoaded", () => {
  if (window.Idiomorph) {
    window.Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, element) =>
      !(name === "open" && element.tagName === "DETAILS");
  }
});
