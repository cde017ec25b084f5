// Places in values: which one is looked at, how its path is written, the small tools beside it, and the panel that says
// where it came from.

import { copyText } from "./page.js";

// The place that an element of a value tree stands for.
export function placeOf(element) {
  const row = element?.closest?.("li[data-path]");
  const root = row?.closest("[data-value]");
  return row && root ? { row, value: root.dataset.value, path: row.dataset.path } : null;
}

// As `--set` takes it: input.amount, reserve.lines[3].sku, reserve["a key"].
export function writtenPath(row) {
  const parts = [];
  let here = row;
  for (; here && here.dataset.path !== ""; here = here.parentElement?.closest("li[data-path]")) {
    const key = here.dataset.path.slice(here.dataset.path.lastIndexOf("/") + 1).replaceAll("~1", "/").replaceAll("~0", "~");
    if (here.hasAttribute("data-item")) parts.push(`[${key}]`);
    else if (/^[^.[\]"\s]+$/u.test(key)) parts.push(`.${key}`);
    else parts.push(`[${JSON.stringify(key)}]`);
  }
  const name = row.closest("[data-value]")?.dataset.name ?? "";
  const path = parts.reverse().join("");
  return name ? name + path : path.replace(/^\./, "");
}

export class Places {
  // `look` has value, path and origin; `ask(place, direction)` is told what somebody wants to know.
  constructor({ base, inspector, panel, look, ask }) {
    Object.assign(this, { base, inspector, panel, look, ask });
    this.wanted = "";
    this.timer = 0;
    this.tools = makeTools();
    this.row = null;
    inspector.addEventListener("pointerover", (event) => this.point(event.target));
    inspector.addEventListener("focusin", (event) => this.point(event.target));
    inspector.addEventListener("pointerleave", () => this.tools.remove());
    inspector.addEventListener("keydown", (event) => this.walk(event));
    this.tools.addEventListener("click", (event) => this.act(event));
    this.settle();
  }

  // The tools go to the row that is pointed at.
  point(target) {
    if (this.tools.contains(target)) return;
    const place = placeOf(target);
    if (!place) return;
    this.row = place.row;
    if (this.tools.parentElement !== place.row) place.row.append(this.tools);
  }

  act(event) {
    const button = event.target.closest("button");
    const place = placeOf(this.tools);
    if (!button || !place) return;
    event.preventDefault();
    event.stopPropagation();
    if (button.dataset.tool === "copy") copyText(writtenPath(place.row) || "", button);
    else this.ask(place, button.dataset.tool);
  }

  // The place that V asks about: the one with the focus, else the one that was pointed at last.
  current() {
    return placeOf(document.activeElement) ?? (this.row?.isConnected ? placeOf(this.row) : null)
      ?? placeOf(this.inspector.querySelector(".tree li.chosen"));
  }

  // Up and down go from place to place; Tab comes into a tree once and leaves it again.
  walk(event) {
    if (event.key !== "ArrowUp" && event.key !== "ArrowDown" || event.altKey || event.ctrlKey || event.metaKey) return;
    if (!event.target.closest?.(".tree")) return;
    const stops = this.stops().filter((stop) => stop.checkVisibility());
    const next = stops[stops.indexOf(event.target) + (event.key === "ArrowDown" ? 1 : -1)];
    if (!next) return;
    event.preventDefault();
    for (const stop of stops) stop.tabIndex = stop === next ? 0 : -1;
    next.focus();
  }

  stops() {
    return [...this.inspector.querySelectorAll(".tree summary, .tree a.v")];
  }

  // After a pane came: one stop for Tab in each tree, and the chosen place marked and in sight.
  settle(isNew = false) {
    for (const root of this.inspector.querySelectorAll(".tree.root")) {
      const stops = [...root.querySelectorAll("summary, a.v")];
      const held = stops.find((stop) => stop === document.activeElement) ?? stops[0];
      for (const stop of stops) stop.tabIndex = stop === held ? 0 : -1;
    }
    const chosen = this.mark();
    if (isNew && chosen) (chosen.querySelector("a.v, summary") ?? chosen).scrollIntoView({ block: "nearest" });
  }

  mark() {
    const { look } = this;
    let found = null;
    for (const row of this.inspector.querySelectorAll(".tree li.chosen")) row.classList.remove("chosen");
    if (!look.value && !look.path) return null;
    for (const root of this.inspector.querySelectorAll("[data-value]")) {
      if (look.value && root.dataset.value !== look.value) continue;
      for (const row of root.querySelectorAll("li[data-path]")) {
        if (row.dataset.path !== look.path) continue;
        row.classList.add("chosen");
        found ??= row;
      }
    }
    return found;
  }

  // The panel, as of the playhead. Nothing is asked twice.
  trace() {
    const { look } = this;
    clearTimeout(this.timer);
    if (!look.origin) {
      this.wanted = "";
      this.panel.hidden = true;
      this.panel.replaceChildren();
      return;
    }
    const [seq, part, ...of] = look.value.split(".");
    const facts = new URLSearchParams({ at: look.at, seq, part, of: of.join("."), path: look.path, dir: look.origin });
    const url = `${this.base}/origin?${facts}`;
    if (url === this.wanted) return;
    this.wanted = url;
    this.timer = setTimeout(() => this.load(url), this.panel.hidden ? 0 : 60);
  }

  async load(url) {
    const answer = await fetch(url, { headers: { "HX-Request": "true" } });
    const text = await answer.text();
    if (url !== this.wanted) return;
    const held = document.createElement("template");
    held.innerHTML = text;
    this.panel.replaceChildren(held.content);
    this.panel.hidden = false;
    this.panel.scrollTop = 0;
    this.inspector.querySelector(".tree li.chosen > a.v, .tree li.chosen > details > summary")?.scrollIntoView({ block: "nearest" });
  }
}

function makeTools() {
  const tools = document.createElement("span");
  tools.className = "row-tools";
  for (const [tool, text, title] of [
    ["back", "origin", "Where it came from (V)"],
    ["forward", "used by", "Who consumed it (Shift V)"],
    ["copy", "copy path", "Copy the path, as --set takes it"],
  ]) {
    const button = document.createElement("button");
    button.type = "button";
    button.tabIndex = -1;
    button.dataset.tool = tool;
    button.textContent = text;
    button.title = title;
    tools.append(button);
  }
  return tools;
}
