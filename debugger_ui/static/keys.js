// The keyboard. One table: the page acts by it, the help shows it, the tests read it.

export const TRACE = ["Line trace, in Code", [
  [",", ",", "lineBack", "back one line"],
  [".", ".", "lineNext", "on one line"],
  ["Shift ,", "Shift+,", "overBack", "back, over calls"],
  ["Shift .", "Shift+.", "overNext", "on, over calls"],
  ["Alt ,", "Alt+,", "outBack", "back to the caller"],
  ["Alt .", "Alt+.", "outNext", "on, out of this call"],
]];

export const KEYS = [
  ["Move", [
    ["←", "ArrowLeft", "prev", "previous event"],
    ["→", "ArrowRight", "next", "next event"],
    ["Shift ←", "Shift+ArrowLeft", "prevStep", "previous step boundary"],
    ["Shift →", "Shift+ArrowRight", "nextStep", "next step boundary"],
    ["Alt ←", "Alt+ArrowLeft", "prevOwn", "this step's previous event"],
    ["Alt →", "Alt+ArrowRight", "nextOwn", "this step's next event"],
    ["[", "[", "prevFailure", "previous failure"],
    ["]", "]", "nextFailure", "next failure"],
    ["Home", "Home", "first", "first event"],
    ["End", "End", "last", "last event"],
  ]],
  ["Look", [
    ["J", "j", "stepDown", "next step"],
    ["K", "k", "stepUp", "previous step"],
    ["Enter", "Enter", "into", "the step of this event"],
    ["Backspace", "Backspace", "out", "back to the run"],
    ["1 … 9", "1", "tab", "a tab of the inspector"],
    ["G", "g", "view", "timeline or graph"],
    ["W", "w", "zoomIn", "zoom in"],
    ["S", "s", "zoomOut", "zoom out"],
    ["A", "a", "panLeft", "pan left"],
    ["D", "d", "panRight", "pan right"],
    ["0", "0", "fit", "show everything"],
  ]],
  ["Act", [
    ["Space", " ", "play", "play or pause"],
    ["<", "<", "slower", "slower"],
    [">", ">", "faster", "faster"],
    ["L", "l", "follow", "follow a running run"],
    ["P", "p", "pin", "stay at this moment"],
    ["M", "m", "mark", "mark this moment"],
    ["C", "c", "compare", "compare the mark with here"],
    ["/", "/", "search", "search in keys and values"],
    ["N", "n", "nextHit", "next hit"],
    ["Shift N", "Shift+n", "prevHit", "previous hit"],
    ["E", "e", "filter", "filter events"],
    ["V", "v", "origin", "where the value came from"],
    ["Shift V", "Shift+v", "uses", "who consumed the value"],
    ["F", "f", "fork", "fork from this step"],
    ["R", "r", "replay", "copy the replay command"],
    ["Y", "y", "copy", "copy the link to this moment"],
    ["?", "?", "help", "these keys"],
    ["Esc", "Escape", "escape", "close, clear"],
  ]],
  TRACE,
];

const byKey = new Map(KEYS.flatMap(([, rows]) => rows.map(([, key, action]) => [key, action])));

// What a key press asks for: [action, key], or nothing while somebody types.
export function actionOf(event) {
  if (event.ctrlKey || event.metaKey || event.isComposing) return null;
  const target = event.target;
  const isTyping = target.matches?.("input, textarea, select, [contenteditable]");
  if (isTyping) return event.key === "Escape" ? ["escape", "Escape"] : null;
  if (event.key === "Enter" || event.key === " ") {
    if (target.closest?.("a, button, summary, dialog")) return null;
  }
  const line = lineKey(event);
  if (line) return [byKey.get(line), line];
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (/^[1-9]$/.test(key) && !event.altKey) return ["tab", key];
  const canShift = key.startsWith("Arrow") || /^[a-z]$/.test(key);
  const alt = event.altKey ? "Alt+" : "";
  const action = (event.shiftKey && canShift && byKey.get(`${alt}Shift+${key}`)) || (event.shiftKey && key.startsWith("Arrow") ? null : byKey.get(alt + key));
  return action ? [action, key] : null;
}

// Where a trace is shown, the keys of comma and period are its own, whatever Shift makes of them on this keyboard.
function lineKey(event) {
  const sign = { Comma: ",", Period: "." }[event.code] ?? (",.".includes(event.key) ? event.key : null);
  if (!sign || !document.querySelector("[data-trace]")) return null;
  return `${event.altKey ? "Alt+" : event.shiftKey ? "Shift+" : ""}${sign}`;
}

export function showKeys(into, table = KEYS) {
  into.replaceChildren(...table.map(([title, rows]) => {
    const section = document.createElement("section");
    const head = document.createElement("h3");
    head.textContent = title;
    const list = document.createElement("dl");
    for (const [shown, , , means] of rows) {
      const key = document.createElement("dt"), text = document.createElement("dd");
      const cap = document.createElement("kbd");
      cap.textContent = shown;
      key.append(cap);
      text.textContent = means;
      list.append(key, text);
    }
    section.append(head, list);
    return section;
  }));
}
