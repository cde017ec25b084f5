// The timeline: a map of the whole run with the playhead, and a lane for each step. Drawn on two canvases; what lies
// behind the playhead is dimmed, and a bar whose end is still to come is drawn as running.

import { Rows } from "./rows.js";
import { isFailure, number, span } from "./words.js";

export const ROW = 24;
const RULER = 22;
const BARS = 160;

export class Scope {
  constructor({ timeline, minimap, lanes, on }) {
    this.timeline = timeline;
    this.map = minimap.querySelector("canvas");
    this.lanes = lanes;
    this.on = on;
    this.scale = "time";
    this.view = [0, 1];
    this.open = new Set();
    lanes.replaceChildren();
    this.scroller = document.createElement("div");
    this.scroller.className = "lane-scroll";
    this.scroller.setAttribute("role", "listbox");
    this.scroller.setAttribute("aria-label", "Steps");
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("aria-hidden", "true");
    const head = document.createElement("p");
    head.className = "lane-head";
    head.textContent = `${number(timeline.steps.length)} ${timeline.steps.length === 1 ? "step" : "steps"}`;
    lanes.append(this.scroller, this.canvas, head);
    this.rows = new Rows(this.scroller, { height: ROW, top: RULER, make: makeRow, draw: (row, i) => this.drawRow(row, i) });
    this.scroller.addEventListener("scroll", () => on.repaint(), { passive: true });
    this.scroller.addEventListener("click", (event) => this.clickRow(event));
    this.readColours();
    for (const canvas of [this.map, this.canvas]) this.listen(canvas);
    new ResizeObserver(() => on.repaint()).observe(lanes);
    new ResizeObserver(() => on.repaint()).observe(this.map.parentElement);
    this.layout();
    this.fit();
  }

  // -- what is where

  layout() {
    const { timeline } = this;
    const groupOf = new Map();
    timeline.groups.forEach((group) => group.members.forEach((member) => groupOf.set(member, group)));
    this.items = [];
    for (let i = 0; i < timeline.steps.length; i++) {
      const group = groupOf.get(i);
      if (group && group.members[0] === i) this.items.push({ group });
      if (!group || this.open.has(group.name)) this.items.push({ step: i, inside: Boolean(group) });
    }
    this.on.resized(RULER + this.items.length * ROW);
    this.place = new Map(this.items.map((item, i) => [item.step, i]).filter(([step]) => step !== undefined));
    this.rows.resize(this.items.length);
  }

  // The row of a step, its group opened if need be.
  show(step) {
    const group = this.timeline.groups.find((one) => one.members.includes(step));
    if (group && !this.open.has(group.name)) this.toggle(group.name);
    this.rows.reveal(this.place.get(step) ?? -1);
  }

  toggle(name) {
    if (!this.open.delete(name)) this.open.add(name);
    this.layout();
    this.on.repaint();
  }

  pos(seq) {
    if (this.scale === "event") return seq;
    return this.timeline.timeOf(seq) - this.timeline.timeOf(1);
  }

  get end() { return Math.max(this.scale === "event" ? this.timeline.seq : this.pos(this.timeline.seq), 1); }
  get start() { return this.scale === "event" ? 1 : 0; }

  fit() {
    this.isFit = true;
    const length = Math.max(this.end - this.start, 1);
    this.view = [this.start - length * 0.01, this.end + length * 0.02];
    this.on.repaint();
  }

  setScale(scale) {
    this.scale = scale;
    this.fit();
  }

  zoom(factor, around) {
    const [low, high] = this.view;
    const centre = around ?? this.pos(this.on.at());
    const least = this.scale === "event" ? 5 : 50;
    const length = Math.max((high - low) * factor, least);
    if (length >= (this.end - this.start) * 1.03) return this.fit();
    const share = Math.max(0, Math.min((centre - low) / (high - low), 1));
    this.isFit = false;
    this.view = [centre - length * share, centre + length * (1 - share)];
    this.on.repaint();
  }

  pan(share) {
    const [low, high] = this.view;
    const by = (high - low) * share;
    this.isFit = false;
    this.view = [low + by, high + by];
    this.on.repaint();
  }

  // Keep the playhead in sight.
  follow(at) {
    if (this.isFit) return;
    const [low, high] = this.view, here = this.pos(at);
    if (here < low || here > high) this.view = [here - (high - low) / 2, here + (high - low) / 2];
  }

  // Seq of the last event at or before a place on the axis.
  seqAt(pos) {
    let low = 1, high = this.timeline.seq;
    if (!high) return 0;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.pos(middle) <= pos) low = middle; else high = middle - 1;
    }
    return low;
  }

  // -- what the mouse does

  listen(canvas) {
    const isMap = canvas === this.map;
    const posOf = (event) => {
      const box = canvas.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      const [low, high] = isMap ? this.whole() : this.view;
      return low + (high - low) * Math.max(0, Math.min(share, 1));
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      this.drag = { from: posOf(event), isRange: event.shiftKey, canvas };
      if (!event.shiftKey) this.on.scrub(this.seqAt(this.drag.from));
      event.preventDefault();
      canvas.focus({ preventScroll: true });
    });
    canvas.addEventListener("pointermove", (event) => {
      const at = posOf(event);
      if (!isMap) this.hover(event);
      if (this.drag?.canvas !== canvas) return;
      this.drag.to = at;
      if (this.drag.isRange) this.on.repaint();
      else this.on.scrub(this.seqAt(at));
    });
    const end = (event) => {
      const drag = this.drag;
      if (drag?.canvas !== canvas) return;
      this.drag = null;
      if (drag.isRange && drag.to !== undefined && drag.to !== drag.from) {
        this.isFit = false;
        this.view = [Math.min(drag.from, drag.to), Math.max(drag.from, drag.to)];
        this.on.repaint();
      } else if (!isMap && event.type === "pointerup" && !drag.to) {
        const item = this.items[this.indexAt(event)];
        if (item?.step !== undefined) this.on.choose(item.step);
      }
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey || event.metaKey) this.zoom(event.deltaY > 0 ? 1.25 : 0.8, posOf(event));
      else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.pan(event.deltaX / 600);
      else if (!isMap) { this.scroller.scrollTop += event.deltaY; } else return;
      event.preventDefault();
    }, { passive: false });
  }

  indexAt(event) {
    const y = event.clientY - this.canvas.getBoundingClientRect().top - RULER + this.scroller.scrollTop;
    return Math.floor(y / ROW);
  }

  hover(event) {
    const item = this.items[this.indexAt(event)];
    this.on.hover(item?.step);
  }

  clickRow(event) {
    const row = event.target.closest(".row");
    const item = row && this.items[Number(row.dataset.index)];
    if (!item) return;
    if (item.group) this.toggle(item.group.name);
    else this.on.choose(item.step);
  }

  // -- drawing

  readColours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    // light-dark() is resolved by asking an element, not the property.
    const probe = document.createElement("i");
    document.body.append(probe);
    const colour = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
    this.c = Object.fromEntries(["ink", "dim", "faint", "line", "panel", "raised", "done", "run", "fail", "retry", "wait",
      "queue", "time", "cancel"].map((name) => [name, colour(`--${name}`)]));
    this.font = `11px ${read("--sans")}`;
    probe.remove();
  }

  paint(state, chosen, mark, found, hits) {
    this.state = state;
    this.chosen = chosen;
    this.rows.refresh();
    this.paintMap(state, mark, found, hits);
    this.paintLanes(state, mark);
  }

  whole() {
    const length = Math.max(this.end - this.start, 1);
    return [this.start - length * 0.005, this.end + length * 0.005];
  }

  paintMap(state, mark, found, hits) {
    const { g, width, height } = prepare(this.map);
    if (!width) return;
    const { timeline, c } = this, [low, high] = this.whole();
    const x = (pos) => ((pos - low) / (high - low)) * width;
    const base = this.baseOf(width, height, x);
    g.globalAlpha = 0.3;
    g.drawImage(base, 0, 0, width, height);
    const here = state.seq ? x(this.pos(state.seq)) : 0;
    g.globalAlpha = 1;
    g.save();
    g.beginPath();
    g.rect(0, 0, here + 1, height);
    g.clip();
    g.drawImage(base, 0, 0, width, height);
    g.restore();
    if (!this.isFit) {
      const a = Math.max(x(this.view[0]), 0), b = Math.min(x(this.view[1]), width);
      g.fillStyle = c.time;
      g.globalAlpha = 0.1;
      g.fillRect(a, 0, b - a, height);
      g.globalAlpha = 0.7;
      g.fillRect(a, 0, 1, height);
      g.fillRect(b - 1, 0, 1, height);
      g.globalAlpha = 1;
    }
    if (found) {
      g.fillStyle = c.retry;
      for (let i = 0; i < found.length; i += Math.ceil(found.length / 2000)) g.fillRect(x(this.pos(found[i])), height - 3, 1, 3);
    }
    if (hits) {
      g.fillStyle = c.ink;
      for (const seq of hits) {
        if (seq > timeline.seq) break;
        g.globalAlpha = seq > state.seq ? 0.45 : 0.9;
        const at = Math.round(x(this.pos(seq)));
        g.fillRect(at - 0.5, 0, 1.5, 9);
      }
      g.globalAlpha = 1;
    }
    if (mark !== null) this.paintMark(g, x(this.pos(mark)), height);
    playhead(g, here, height, c.time, true);
  }

  // Bars of how much happened when, and what failed: the same until something new comes.
  baseOf(width, height, x) {
    const key = `${width} ${height} ${this.timeline.seq} ${this.scale} ${this.c.ink}`;
    if (this.baseKey === key) return this.base;
    const { timeline, c } = this;
    const ratio = devicePixelRatio || 1;
    this.base = new OffscreenCanvas(Math.max(1, width * ratio), Math.max(1, height * ratio));
    this.baseKey = key;
    const g = this.base.getContext("2d");
    g.scale(ratio, ratio);
    const count = Math.min(BARS, Math.floor(width / 5)), bins = new Float64Array(count), failed = new Uint8Array(count);
    for (let seq = 1; seq <= timeline.seq; seq++) {
      const bin = Math.min(count - 1, Math.max(0, Math.floor((x(this.pos(seq)) / width) * count)));
      bins[bin]++;
      if (isFailure(timeline.kindOf(seq))) failed[bin] = 1;
    }
    const most = Math.max(...bins, 1), step = width / count;
    for (let i = 0; i < count; i++) {
      if (!bins[i]) continue;
      const tall = Math.max(2, (height - 12) * Math.sqrt(bins[i] / most));
      g.fillStyle = failed[i] ? c.fail : c.faint;
      g.fillRect(i * step + 0.5, height - tall - 2, Math.max(step - 1.5, 1), tall);
      if (failed[i]) {
        g.beginPath();
        g.moveTo(i * step + step / 2 - 3.5, 1);
        g.lineTo(i * step + step / 2 + 3.5, 1);
        g.lineTo(i * step + step / 2, 6.5);
        g.fill();
      }
    }
    return this.base;
  }

  paintMark(g, at, height) {
    g.fillStyle = this.c.time;
    g.globalAlpha = 0.8;
    for (let y = 0; y < height; y += 5) g.fillRect(Math.round(at), y, 1, 3);
    g.globalAlpha = 1;
  }

  paintLanes(state, mark) {
    const { g, width, height } = prepare(this.canvas);
    if (!width) return;
    const { c } = this, [low, high] = this.view;
    const x = (pos) => ((pos - low) / (high - low)) * width;
    const here = state.seq ? x(this.pos(state.seq)) : x(this.start);
    this.paintRuler(g, x, width, height);
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW));
    const last = Math.min(this.items.length, first + Math.ceil(height / ROW) + 1);
    g.save();
    g.beginPath();
    g.rect(0, RULER, width, height - RULER);
    g.clip();
    for (let i = first; i < last; i++) {
      const top = RULER + i * ROW - this.scroller.scrollTop, item = this.items[i];
      if (item.step === this.chosen && this.chosen >= 0) {
        g.fillStyle = c.time;
        g.globalAlpha = 0.09;
        g.fillRect(0, top, width, ROW);
        g.globalAlpha = 1;
      }
      if (item.group) this.paintGroup(g, x, top, item.group, state, here, width);
      else this.paintStep(g, x, top, item.step, state, here, width);
    }
    g.restore();
    if (this.drag?.isRange && this.drag.to !== undefined) this.paintRange(g, x, height);
    if (mark !== null) this.paintMark(g, x(this.pos(mark)), height);
    playhead(g, here, height, c.time, false);
  }

  paintRange(g, x, height) {
    const a = x(Math.min(this.drag.from, this.drag.to)), b = x(Math.max(this.drag.from, this.drag.to));
    g.fillStyle = this.c.time;
    g.globalAlpha = 0.15;
    g.fillRect(a, 0, b - a, height);
    g.globalAlpha = 1;
    g.font = this.font;
    g.textAlign = "center";
    const low = this.seqAt(Math.min(this.drag.from, this.drag.to)), high = this.seqAt(Math.max(this.drag.from, this.drag.to));
    g.fillStyle = this.c.ink;
    g.fillText(`${span(this.timeline.timeOf(high) - this.timeline.timeOf(low))}, ${number(high - low)} events`, (a + b) / 2, height - 8);
  }

  paintRuler(g, x, width, height) {
    const { c } = this, [low, high] = this.view;
    const step = nice((high - low) / Math.max(width / 90, 1), this.scale === "time");
    g.font = this.font;
    g.textAlign = "left";
    g.textBaseline = "alphabetic";
    for (let pos = Math.max(Math.ceil(low / step) * step, 0); pos <= Math.min(high, this.end); pos += step) {
      const at = Math.round(x(pos));
      g.fillStyle = c.line;
      g.fillRect(at, RULER - 6, 1, height);
      g.fillStyle = c.dim;
      g.fillText(this.scale === "event" ? `#${number(Math.round(pos))}` : pos ? span(pos) : "0", at + 4, 14);
    }
    g.fillStyle = c.line;
    g.fillRect(0, RULER - 1, width, 1);
  }

  paintStep(g, x, top, step, state, here, width) {
    for (const part of this.timeline.segments[step]) {
      const a = x(this.pos(part.from));
      const b = x(part.to ? this.pos(part.to) : this.timeline.over ? this.pos(part.from) : this.end);
      if (b < -2 || a > width + 2) continue;
      const isPast = part.from <= state.seq, isOver = part.to && part.to <= state.seq;
      this.bar(g, part, a, b, top, here, isPast, isOver);
    }
  }

  bar(g, part, a, b, top, here, isPast, isOver) {
    const { c, timeline } = this, s = timeline.status, middle = top + ROW / 2;
    const long = Math.max(b - a, 2);
    if (part.status === s.RUNNING) {
      const colour = !isOver ? c.run : part.end === "step_done" ? c.done : part.end === "lease_lost" ? c.retry
        : part.end === "step_cancelled" ? c.cancel : c.fail;
      g.fillStyle = isPast ? colour : part.end === "step_failed" ? c.fail : c.faint;
      g.globalAlpha = isPast ? 1 : 0.22;
      g.fillRect(a, middle - 5, long, 10);
      if (isPast && !isOver && here < b) {
        // The rest of it is still to come.
        g.globalAlpha = 0.75;
        g.fillStyle = c.panel;
        g.fillRect(Math.max(here, a + 2), middle - 5, b - here, 10);
      }
    } else if (part.status === s.SCHEDULED) {
      g.globalAlpha = isPast ? 1 : 0.3;
      g.fillStyle = c.queue;
      g.fillRect(a, middle - 1.5, Math.max(b - a, 1), 3);
    } else if (part.status === s.FAILED) {
      g.globalAlpha = isPast ? 1 : 0.3;
      g.fillStyle = c.retry;
      for (let at = a; at < b; at += 6) g.fillRect(at, middle - 1, Math.min(3, b - at), 2);
    } else if (part.status === s.WAITING) {
      g.globalAlpha = isPast ? 1 : 0.3;
      g.fillStyle = c.wait;
      for (let at = a; at < b; at += 4) g.fillRect(at, middle - 1, 1.5, 2);
    } else if (part.end === "" && (part.status === s.DEAD || part.status === s.EXPIRED)) {
      g.globalAlpha = isPast ? 1 : 0.3;
      g.strokeStyle = c.fail;
      g.lineWidth = 1.8;
      g.beginPath();
      g.moveTo(a + 4, middle - 4); g.lineTo(a + 12, middle + 4);
      g.moveTo(a + 12, middle - 4); g.lineTo(a + 4, middle + 4);
      g.stroke();
    }
    g.globalAlpha = 1;
  }

  // A closed group: one hair for each of its steps.
  paintGroup(g, x, top, group, state, here, width) {
    const { timeline, c } = this, s = timeline.status, room = ROW - 6, count = group.members.length;
    const tall = Math.max(0.75, Math.min(3, room / count));
    group.members.forEach((step, i) => {
      const y = top + 3 + (i / count) * room;
      for (const part of timeline.segments[step]) {
        if (part.status !== s.RUNNING && part.status !== s.FAILED) continue;
        const a = x(this.pos(part.from)), b = x(part.to ? this.pos(part.to) : this.end);
        if (b < 0 || a > width) continue;
        const isPast = part.from <= state.seq, isOver = part.to && part.to <= state.seq;
        g.globalAlpha = isPast ? 0.95 : 0.2;
        g.fillStyle = !isPast ? c.faint : part.status === s.FAILED ? c.retry : !isOver ? c.run : part.end === "step_done" ? c.done : c.fail;
        g.fillRect(a, y, Math.max((isPast && !isOver ? Math.min(b, here) : b) - a, 1.5), tall);
      }
    });
    g.globalAlpha = 1;
  }

  drawRow(row, index) {
    const item = this.items[index], { timeline, state } = this;
    if (!state) return;
    if (item.group) {
      const isOpen = this.open.has(item.group.name), said = tally(timeline, state, item.group.members);
      const key = `${item.group.name} ${isOpen} ${said}`;
      if (row.key === key) return;
      row.key = key;
      row.className = "row step group";
      setGlyph(row, "open");
      row.glyph.classList.toggle("closed", !isOpen);
      row.name.textContent = `${item.group.name} ×${number(item.group.members.length)}`;
      row.title = row.tries.textContent = said;
      row.setAttribute("aria-selected", "false");
      row.setAttribute("aria-label", `${item.group.name}, ${item.group.members.length} steps, ${isOpen ? "open" : "closed"}`);
      return;
    }
    const status = timeline.machine.steps[state.status[item.step]].toLowerCase();
    const isChosen = item.step === this.chosen, key = `${item.step} ${item.inside} ${status} ${state.attempt[item.step]} ${isChosen}`;
    if (row.key === key) return;
    row.key = key;
    row.className = `row step s-${status}${isChosen ? " chosen" : ""}${item.inside ? " inside" : ""}`;
    setGlyph(row, status);
    row.glyph.classList.remove("closed");
    row.name.textContent = timeline.steps[item.step];
    row.title = timeline.steps[item.step];
    const attempt = state.attempt[item.step];
    row.tries.textContent = attempt > 1 ? `×${attempt}` : "";
    row.setAttribute("aria-selected", String(isChosen));
    row.setAttribute("aria-label", `${timeline.steps[item.step]}, ${status}${attempt > 1 ? `, attempt ${attempt}` : ""}`);
  }
}

export function tally(timeline, state, members) {
  const counts = new Map();
  for (const step of members) counts.set(state.status[step], (counts.get(state.status[step]) ?? 0) + 1);
  return [...counts].sort(([a], [b]) => b - a).map(([status, count]) => `${number(count)} ${timeline.machine.steps[status].toLowerCase()}`).join(" · ");
}

function makeRow() {
  const row = document.createElement("div");
  row.setAttribute("role", "option");
  row.glyph = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  row.glyph.setAttribute("class", "g");
  row.glyph.setAttribute("aria-hidden", "true");
  row.use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  row.glyph.append(row.use);
  row.name = document.createElement("span");
  row.name.className = "name";
  row.tries = document.createElement("span");
  row.tries.className = "tries";
  row.append(row.glyph, row.name, row.tries);
  return row;
}

function setGlyph(row, name) {
  if (row.shown !== name) row.use.setAttribute("href", `#g-${name}`);
  row.shown = name;
}

// Sizes of canvases, as of the last layout: asked for amid changes they would cost one more.
const sizes = new WeakMap();
const observer = new ResizeObserver((entries) => { for (const { target } of entries) sizes.set(target, target.getBoundingClientRect()); });

function sizeOf(canvas) {
  if (!sizes.has(canvas)) {
    sizes.set(canvas, canvas.getBoundingClientRect());
    observer.observe(canvas);
  }
  return sizes.get(canvas);
}

function prepare(canvas) {
  const box = sizeOf(canvas), ratio = devicePixelRatio || 1;
  const width = Math.round(box.width), height = Math.round(box.height);
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  return { g, width, height };
}

function playhead(g, x, height, colour, hasHandle) {
  g.fillStyle = colour;
  g.fillRect(Math.round(x) - 0.75, 0, 1.5, height);
  if (!hasHandle) return;
  g.beginPath();
  g.arc(Math.round(x), height - 5, 4.5, 0, 7);
  g.fill();
}

// A round step for the ruler: 1, 2 or 5 times a power of ten; of time, also quarters of minutes and hours.
function nice(least, isTime) {
  if (isTime && least > 1e6) {
    const seconds = least / 1e6;
    const found = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400].find((s) => s >= seconds);
    return (found ?? Math.ceil(seconds / 86400) * 86400) * 1e6;
  }
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
  return Math.max(1, [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least));
}
