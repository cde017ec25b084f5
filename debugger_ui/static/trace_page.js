// The page of one trace.

import { actionOf, showKeys, TRACE } from "./keys.js";
import { copyText } from "./page.js";
import { TraceView } from "./trace.js";

const view = new TraceView(document.querySelector("[data-trace]"), (place, isNew) => {
  const url = `${view.href}?line=${encodeURIComponent(place)}`;
  if (isNew) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
});
const help = document.getElementById("help");
const copy = () => copyText(`${location.origin}${view.href}?line=${encodeURIComponent(view.stop.dataset.place)}`, copyButton);
const copyButton = document.querySelector("[data-copy-here]"), helpButton = document.querySelector("[data-help]");
copyButton.hidden = helpButton.hidden = false;
copyButton.addEventListener("click", copy);

const toggleHelp = () => (help.open ? help.close() : help.showModal());
helpButton.addEventListener("click", toggleHelp);
showKeys(document.querySelector("[data-keys]"), [TRACE, ["Page", [
  ["Home", "Home", "first", "first line"],
  ["End", "End", "last", "last line"],
  ["[", "[", "prevFailure", "previous raised exception"],
  ["]", "]", "nextFailure", "next raised exception"],
  ["Y", "y", "copy", "copy the link to this line"],
  ["Esc", "Escape", "escape", "close the list of hits"],
]]]);

const ACTIONS = {
  lineBack: "back", lineNext: "step", overBack: "previous", overNext: "next", outBack: "rout", outNext: "out",
  first: "first", last: "last", prevFailure: "raised-before", nextFailure: "raised-after",
};

document.addEventListener("keydown", (event) => {
  const action = actionOf(event)?.[0];
  if (action === "help") toggleHelp();
  else if (help.open) return;
  else if (action === "copy") copy();
  else if (action === "escape") view.root.querySelector("[data-hits]").replaceChildren();
  else if (ACTIONS[action] && event.target !== view.slide) view.move(ACTIONS[action]);
  else return;
  event.preventDefault();
});

addEventListener("popstate", () => {
  const line = new URLSearchParams(location.search).get("line");
  if (line) view.ask({ line });
  else location.reload();
});
