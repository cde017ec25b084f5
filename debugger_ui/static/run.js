// The run page: one playhead that everything follows.

import { Timeline } from "./fold.js";
import { openFork } from "./fork.js";
import { actionOf, showKeys } from "./keys.js";
import { Live } from "./live.js";
import { copyText } from "./page.js";
import { Places, placeOf } from "./places.js";
import { Rows } from "./rows.js";
import { Scope, tally } from "./scope.js";
import { Search } from "./search.js";
import { TraceView } from "./trace.js";
import { clock, isFailure, kindWords, number, offset } from "./words.js";

const SPEEDS = [1, 4, 16, Infinity];
const LONGEST_GAP = 400;  // milliseconds that a pause of the run may take while it is played
const main = document.getElementById("main");
const { base } = main.dataset;
const $ = (id) => document.getElementById(id);

let timeline, scope, list, live, places, search;
let visible = null;       // seqs that pass the filter, or null for all
let frame = 0, paneTimer = 0, urlTimer = 0, playTimer = 0, wantedPane = "", fresh = 0, lastSpoken = 0;
let streamState = "";

// Where the page looks. Written by `go` alone.
const opened = new Set(main.dataset.open.split(",").filter(Boolean));  // groups of the graph
const look = {
  at: Number(main.dataset.at), step: -1, attempt: Number(main.dataset.attempt) || null, pane: main.dataset.pane,
  mark: main.dataset.mark === "" ? null : Number(main.dataset.mark), view: main.dataset.view,
  follow: main.dataset.follow === "1", speed: 1, playing: false, filter: "", line: main.dataset.line,
  value: main.dataset.value, path: main.dataset.path, origin: main.dataset.origin, q: main.dataset.q, list: "events",
};

start();

async function start() {
  const answer = await fetch(`${base}/index.json`);
  if (!answer.ok) return;
  const columns = await answer.json();
  timeline = new Timeline(columns.machine, columns.graph);
  timeline.append(columns);
  look.step = timeline.number.get(main.dataset.step) ?? -1;
  look.at = Math.min(look.at, timeline.seq);
  adoptTrace();
  if (look.follow) look.at = timeline.seq;
  const query = new URLSearchParams(location.search);
  look.filter = query.get("filter") ?? "";
  main.classList.add("alive");
  for (const part of document.querySelectorAll("[data-tools], [data-filter], [data-do], [data-copy-here], #minimap")) {
    if (part.dataset.do !== "new") part.hidden = false;
  }
  scope = new Scope({
    timeline, minimap: $("minimap"), lanes: $("lanes"),
    on: {
      at: () => look.at, repaint, scrub: (seq) => go({ at: seq, follow: false }),
      choose: (step) => go({ step, attempt: null }, true), resized: fitScope,
    },
  });
  $("events").replaceChildren();
  list = new Rows($("events"), { height: 24, make: makeEvent, draw: drawEvent });
  $("events").setAttribute("role", "listbox");
  $("events").setAttribute("aria-label", "Events");
  $("events").tabIndex = 0;
  const field = document.querySelector("[data-filter] input");
  field.value = look.filter;
  applyFilter();
  listen(field);
  places = new Places({ base, inspector: $("inspector"), panel: $("trace"), look, ask: trace });
  search = new Search({
    base, form: document.querySelector("[data-search]"), list: $("found"), look, changed: searched,
    go: (hit) => hit.click(),
  });
  setList(look.q ? "found" : "events");
  wantedPane = paneUrl();
  places.mark()?.scrollIntoView({ block: "nearest" });
  if (look.step >= 0) scope.show(look.step);
  setView(look.view);
  reveal(true);
  repaint();
  if (timeline.grows) {
    live = new Live(base, timeline, {
      onNews: news, onEnd: ended, onResync: () => location.reload(), onState: showStream,
    });
  } else {
    document.querySelector("[data-do=follow]").hidden = true;
    // It ended after the page was made and before its events were read: the head still says that it goes on.
    if (!main.dataset.over) refreshHead();
  }
  main.dataset.ready = "1";
}

// -- the one way to move

function go(change, isDeliberate = false) {
  if ("at" in change) change.at = Math.max(0, Math.min(change.at, timeline.seq));
  const before = { ...look };
  Object.assign(look, change);
  if (look.step !== before.step || look.attempt !== before.attempt) look.line = "";
  if (look.playing && "at" in change && !change.played) stop();
  if (look.follow) { look.at = timeline.seq; fresh = 0; }
  if (look.at === timeline.seq) fresh = 0;
  const hasMoved = before.at !== look.at;
  if (hasMoved) scope.follow(look.at);
  if ("step" in change && look.step >= 0 && look.step !== before.step) scope.show(look.step);
  if (isDeliberate) writeUrl(true);
  else { clearTimeout(urlTimer); urlTimer = setTimeout(() => writeUrl(false), 220); }
  if (hasMoved) reveal();
  // Another place, unless it was pointed at in the pane that is shown: then that need not come again.
  if (look.step !== before.step || look.pane !== before.pane) forget(change);
  if (change.isShown) wantedPane = paneUrl();
  askPane();
  places.mark();
  places.trace();
  repaint();
}

// Whoever goes to another step or pane has left the place in a value behind.
function forget(change) {
  if ("value" in change) return;
  look.value = look.path = look.origin = "";
}

// What is asked about a place in a value: `back` or `forward`.
function trace(place, origin) {
  go({ value: place.value, path: place.path, origin, isShown: true }, true);
}

function query() {
  const facts = new URLSearchParams();
  facts.set("at", look.at);
  if (look.step >= 0) facts.set("step", timeline.steps[look.step]);
  if (look.attempt !== null) facts.set("attempt", look.attempt);
  if (look.pane !== "summary") facts.set("pane", look.pane);
  if (look.mark !== null) facts.set("mark", look.mark);
  if (look.view !== "timeline") facts.set("view", look.view);
  if (opened.size) facts.set("open", [...opened].join(","));
  if (look.line && look.pane === "code" && look.step >= 0) facts.set("line", look.line);
  for (const name of ["value", "path"]) if (look[name]) facts.set(name, look[name]);
  return facts;
}

function address() {
  const facts = query();
  if (look.follow) facts.set("at", "live");
  if (look.filter) facts.set("filter", look.filter);
  if (look.origin) facts.set("origin", look.origin);
  if (look.q) facts.set("q", look.q);
  return `${base}?${facts}`;
}

function writeUrl(isNew) {
  clearTimeout(urlTimer);
  const url = address();
  if (url === location.pathname + location.search) return;
  if (isNew) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
}

addEventListener("popstate", () => {
  const facts = new URLSearchParams(location.search);
  const at = facts.get("at");
  look.follow = at === "live";
  look.at = at === "live" || at === null ? timeline.seq : Math.min(Number(at) || 0, timeline.seq);
  look.step = timeline.number.get(facts.get("step")) ?? -1;
  look.attempt = facts.has("attempt") ? Number(facts.get("attempt")) : null;
  look.pane = facts.get("pane") ?? "summary";
  look.mark = facts.has("mark") ? Number(facts.get("mark")) : null;
  look.line = facts.get("line") ?? "";
  for (const name of ["value", "path", "origin"]) look[name] = facts.get(name) ?? "";
  const text = facts.get("q") ?? "";
  search.field.value = text;
  search.ask(text);
  setList(text ? "found" : "events");
  opened.clear();
  for (const name of (facts.get("open") ?? "").split(",").filter(Boolean)) opened.add(name);
  setView(facts.get("view") ?? "timeline");
  reveal();
  askPane();
  places.mark();
  places.trace();
  repaint();
});

// -- painting: at most once per frame

function repaint() {
  if (!frame && scope) frame = requestAnimationFrame(paint);
}

function paint() {
  frame = 0;
  const state = timeline.stateAt(look.at), from = list.scroller.scrollTop;  // before anything changes
  scope.paint(state, look.step, look.mark, visible, look.q ? search.seqs : null);
  if (look.list === "found") search.mark();
  list.refresh(from);
  if (look.view === "graph") paintGraph(state);
  paintTransport(state);
}

function paintTransport(state) {
  const { at } = look, last = timeline.seq;
  setText($("here"), `#${number(at)}`);
  setText($("last"), number(last));
  setText($("offset"), at ? offset(timeline.timeOf(at) - timeline.timeOf(1)) : "");
  setText($("clock"), at ? clock(timeline.timeOf(at)) : "before the first event");
  const kind = at ? timeline.kindOf(at) : "";
  const step = at ? timeline.stepOf(at) : -1;
  const name = step >= 0 ? timeline.steps[step] : "";
  const what = $("what");
  if (what.dataset.at !== String(at)) {
    what.dataset.at = at;
    const word = document.createElement("span");
    word.className = `e-${kind}`;
    word.textContent = kindWords(kind);
    what.replaceChildren(word, ` ${name} ${timeline.notes.get(at) ?? ""}`);
  }
  const spoken = `event ${number(at)} of ${number(last)}${at ? `, ${name} ${kindWords(kind)}, ${$("offset").textContent}` : ""}`;
  const slider = scope.map;
  slider.setAttribute("aria-valuemax", last);
  slider.setAttribute("aria-valuenow", at);
  slider.setAttribute("aria-valuetext", spoken);
  const follow = document.querySelector("[data-do=follow]");
  follow.setAttribute("aria-pressed", String(look.follow));
  const more = document.querySelector("[data-do=new]");
  more.hidden = !fresh;
  setText(more, `+${number(fresh)} new`);
  setText($("events-count"), look.list === "found" ? "" : visible ? `${number(visible.length)} of ${number(last)}` : number(last));
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function speak(text) {
  if (performance.now() - lastSpoken < 5000) return;
  lastSpoken = performance.now();
  $("spoken").textContent = text;
}

// -- the list of events

function makeEvent() {
  const row = document.createElement("a");
  row.setAttribute("role", "option");
  row.tabIndex = -1;
  row.parts = {};
  for (const name of ["seq", "at", "kind", "who", "note"]) {
    row.parts[name] = document.createElement("span");
    row.parts[name].className = name;
    row.append(row.parts[name]);
  }
  return row;
}

function seqOf(index) { return visible ? visible[index] : index + 1; }

function drawEvent(row, index) {
  const seq = seqOf(index), step = timeline.stepOf(seq), attempt = timeline.attemptOf(seq);
  const isHere = seq === look.at, count = visible ? visible.length : timeline.seq;
  const key = `${seq} ${index} ${count} ${seq > look.at} ${isHere} ${step >= 0 && step === look.step}`;
  if (row.key === key) return;
  row.key = key;
  row.className = `row ev e-${timeline.kindOf(seq)}${seq > look.at ? " future" : ""}${isHere ? " here" : ""}${step >= 0 && step === look.step ? " own" : ""}`;
  row.id = `ev-${seq}`;
  if (isHere) $("events").setAttribute("aria-activedescendant", row.id);
  row.setAttribute("aria-selected", String(isHere));
  row.setAttribute("aria-posinset", index + 1);
  row.setAttribute("aria-setsize", count);
  row.href = `${base}?at=${seq}${step >= 0 ? `&step=${encodeURIComponent(timeline.steps[step])}` : ""}`;
  row.dataset.seq = seq;
  const { parts } = row;
  setText(parts.seq, String(seq));
  setText(parts.at, offset(timeline.timeOf(seq) - timeline.timeOf(1)));
  setText(parts.kind, kindWords(timeline.kindOf(seq)));
  setText(parts.who, step >= 0 ? timeline.steps[step] + (attempt > 1 ? ` ×${attempt}` : "") : "");
  setText(parts.note, timeline.notes.get(seq) ?? "");
}

function reveal(isFirst = false) {
  const index = visible ? lowerBound(visible, look.at) : look.at - 1;
  if (isFirst) $("events").scrollTop = Math.max(0, index * 24 - $("events").clientHeight / 2);
  list.reveal(Math.max(0, index));
}

function lowerBound(seqs, seq) {
  let low = 0, high = seqs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (seqs[middle] < seq) low = middle + 1; else high = middle;
  }
  return low;
}

function applyFilter() {
  const wanted = look.filter.toLowerCase().split(/\s+/).filter(Boolean);
  if (!wanted.length) visible = null;
  else {
    visible = [];
    for (let seq = 1; seq <= timeline.seq; seq++) if (passes(seq, wanted)) visible.push(seq);
  }
  list.resize(visible ? visible.length : timeline.seq);
  $("events").classList.toggle("nothing", Boolean(visible) && !visible.length);
}

function passes(seq, wanted) {
  const step = timeline.stepOf(seq), kind = timeline.kindOf(seq);
  const text = `${kind} ${kindWords(kind)} ${step >= 0 ? timeline.steps[step] : ""} ${timeline.notes.get(seq) ?? ""}`.toLowerCase();
  return wanted.every((word) => text.includes(word));
}

// -- the inspector: a fragment from the server, asked for when the playhead rests

function paneUrl() { return `${base}/pane?${query()}`; }

function askPane() {
  const url = paneUrl();
  if (url === wantedPane) return;
  wantedPane = url;
  clearTimeout(paneTimer);
  paneTimer = setTimeout(() => {
    window.htmx?.ajax("GET", url, { source: "#inspector", target: "#inspector", swap: "morph:innerHTML" })?.catch(() => {});
  }, 60);
}

document.addEventListener("htmx:beforeSwap", (event) => {
  const { detail } = event;
  if (detail.target?.id !== "inspector") return;
  // The playhead has moved on: what comes too late is not shown.
  if (detail.pathInfo.requestPath !== wantedPane) detail.shouldSwap = false;
  else if (detail.xhr.status >= 400) detail.shouldSwap = true;
});

document.addEventListener("htmx:afterSettle", (event) => {
  if (event.target?.id === "inspector") {
    main.dataset.pane = look.pane;
    adoptTrace();
    places.settle(true);
  } else if (event.target?.closest?.("#inspector")) places.settle();
});

// -- the line trace of the Code pane

let traced = null;

function adoptTrace() {
  const root = $("pane")?.querySelector("[data-trace]");
  if (traced?.root === root && root) return traced.mark();
  traced = root ? new TraceView(root, showLine) : null;
}

// The pane shows it already: the address follows, and nothing is asked for again.
function showLine(place, isDeliberate) {
  look.line = place;
  wantedPane = paneUrl();
  if (isDeliberate) writeUrl(true);
  else { clearTimeout(urlTimer); urlTimer = setTimeout(() => writeUrl(false), 220); }
}

// A step in the trace; the first one opens it.
function stepLine(way) {
  if (traced) return traced.move(way);
  if ($("pane").querySelector("a[data-place='here']")) go({ line: "here" }, true);
}

// -- the graph

let graphKey = "";
let graphZoom = 1;

async function showGraph() {
  const key = [...opened].join(",");
  if (graphKey === key && $("graph").firstElementChild) return fitGraph();
  graphKey = key;
  const answer = await fetch(`${base}/graph?${query()}`, { headers: { "HX-Request": "true" } });
  if (!answer.ok || graphKey !== key) return;
  const held = document.createElement("template");
  held.innerHTML = await answer.text();
  $("graph").replaceChildren(held.content);
  fitGraph();
  repaint();
}

function openGroup(name) {
  opened.add(name);
  writeUrl(true);
  showGraph();
}

function fitGraph() {
  const svg = $("graph").querySelector("svg.graph");
  if (!svg) return;
  const room = $("graph").getBoundingClientRect(), box = svg.viewBox.baseVal;
  // Never so small that names cannot be read: then it scrolls.
  graphZoom = Math.min(1, Math.max(0.7, Math.min((room.width - 2) / box.width, (room.height - 2) / box.height)));
  zoomGraph(1);
}

function zoomGraph(factor) {
  const svg = $("graph").querySelector("svg.graph");
  if (!svg) return;
  graphZoom = Math.max(0.15, Math.min(graphZoom * factor, 3));
  svg.setAttribute("width", svg.viewBox.baseVal.width * graphZoom);
  svg.setAttribute("height", svg.viewBox.baseVal.height * graphZoom);
}

function paintGraph(state) {
  for (const node of $("graph").querySelectorAll("a.node")) {
    if (node.dataset.i !== undefined) {
      const step = Number(node.dataset.i), status = timeline.machine.steps[state.status[step]].toLowerCase();
      const look_ = `node s-${status}${step === look.step ? " chosen" : ""}`;
      if (node.getAttribute("class") === look_) continue;
      node.setAttribute("class", look_);
      node.querySelector("use").setAttribute("href", `#g-${status}`);
      node.querySelector("title").textContent = `${timeline.steps[step]}: ${status}`;
    } else {
      const members = (node.members ??= node.dataset.steps.split(",").map(Number));
      setText(node.querySelector(".tally"), tally(timeline, state, members));
      const worst = worstOf(state, members);
      node.setAttribute("class", `node group s-${worst}${members.includes(look.step) ? " chosen" : ""}`);
    }
  }
  for (const edge of $("graph").querySelectorAll(".edges path")) {
    const isReached = state.status[Number(edge.dataset.from)] === timeline.status.DONE;
    edge.classList.toggle("reached", isReached);
    edge.classList.toggle("own", look.step >= 0 && (Number(edge.dataset.from) === look.step || Number(edge.dataset.to) === look.step));
  }
}

function worstOf(state, members) {
  const order = ["DEAD", "EXPIRED", "FAILED", "RUNNING", "WAITING", "CANCELLED", "SCHEDULED", "PENDING", "DONE", "SKIPPED"];
  const found = new Set(members.map((step) => timeline.machine.steps[state.status[step]]));
  return (order.find((status) => found.has(status)) ?? "PENDING").toLowerCase();
}

function setView(view) {
  look.view = view;
  $("lanes").hidden = view === "graph";
  $("graph").hidden = view !== "graph";
  document.querySelector(".scope").classList.toggle("is-graph", view === "graph");
  for (const link of document.querySelectorAll(".switch [data-view]")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  if (view === "graph") showGraph();
}

// No more room for the lanes than they need.
function fitScope(height) {
  main.style.setProperty("--lanes", `${height + 90}px`);
}

// -- playing

function play() {
  if (look.playing) return stop();
  if (look.at >= timeline.seq) look.at = 0;
  look.playing = true;
  look.follow = false;
  showPlay();
  tick();
}

function stop() {
  look.playing = false;
  clearTimeout(playTimer);
  showPlay();
}

function tick() {
  if (!look.playing) return;
  const next = after(look.at, 1);
  if (next === null) return stop();
  go({ at: next, played: true });
  const later = after(next, 1);
  if (later === null) return stop();
  const speed = SPEEDS[look.speed];
  const gap = Math.min((timeline.timeOf(later) - timeline.timeOf(next)) / 1000 / speed, LONGEST_GAP / Math.min(speed, 4));
  playTimer = setTimeout(tick, speed === Infinity ? 16 : Math.max(gap, 30));
}

function showPlay() {
  const button = document.querySelector("[data-do=play]");
  button.querySelector("use").setAttribute("href", look.playing ? "#g-pause" : "#g-play");
  button.setAttribute("aria-label", look.playing ? "Pause" : "Play");
}

function setSpeed(by) {
  look.speed = Math.max(0, Math.min(look.speed + by, SPEEDS.length - 1));
  const speed = SPEEDS[look.speed];
  document.querySelector("[data-do=speed]").textContent = speed === Infinity ? "max" : `${speed}×`;
}

// -- where one can go from here

// The visible event before or after `seq`; null at the ends.
function after(seq, by) {
  if (!visible) return seq + by >= (by < 0 ? 0 : 1) && seq + by <= timeline.seq ? seq + by : null;
  const index = by > 0 ? lowerBound(visible, seq + 1) : lowerBound(visible, seq) - 1;
  return visible[index] ?? null;
}

function nearest(by, fits) {
  for (let seq = look.at + by; seq >= 1 && seq <= timeline.seq; seq += by) if (fits(seq)) return seq;
  return null;
}

const BOUNDARIES = new Set(["step_started", "step_done", "step_failed", "step_dead", "step_cancelled", "step_expired", "lease_lost"]);

function ownEvent(by) {
  if (look.step < 0) return after(look.at, by);
  const own = timeline.bySteps[look.step];
  const index = by > 0 ? lowerBound(own, look.at + 1) : lowerBound(own, look.at) - 1;
  return own[index] ?? null;
}

function jump(seq, change = {}) {
  if (seq !== null) go({ at: seq, follow: false, ...change });
}

function moveStep(by) {
  const steps = scope.items.filter((item) => item.step !== undefined).map((item) => item.step);
  const index = steps.indexOf(look.step);
  const next = steps[index < 0 ? (by > 0 ? 0 : steps.length - 1) : index + by];
  if (next !== undefined) go({ step: next, attempt: null });
}

const ACTIONS = {
  prev: () => jump(after(look.at, -1)),
  next: () => jump(after(look.at, 1)),
  prevStep: () => jump(nearest(-1, (seq) => BOUNDARIES.has(timeline.kindOf(seq)))),
  nextStep: () => jump(nearest(1, (seq) => BOUNDARIES.has(timeline.kindOf(seq)))),
  prevOwn: () => jump(ownEvent(-1)),
  nextOwn: () => jump(ownEvent(1)),
  prevFailure: () => jump(nearest(-1, (seq) => isFailure(timeline.kindOf(seq)))),
  nextFailure: () => jump(nearest(1, (seq) => isFailure(timeline.kindOf(seq)))),
  first: () => jump(visible ? visible[0] ?? null : 1),
  last: () => jump(visible ? visible[visible.length - 1] ?? null : timeline.seq),
  stepDown: () => moveStep(1),
  stepUp: () => moveStep(-1),
  into: () => look.at && timeline.stepOf(look.at) >= 0 && go({ step: timeline.stepOf(look.at), attempt: null }, true),
  out: () => go({ step: -1, attempt: null, pane: "summary" }, true),
  tab: (key) => document.querySelector(`.tabs [data-key="${key}"]`)?.click(),
  view: () => { setView(look.view === "graph" ? "timeline" : "graph"); writeUrl(true); repaint(); },
  zoomIn: () => (look.view === "graph" ? zoomGraph(1.25) : scope.zoom(0.6)),
  zoomOut: () => (look.view === "graph" ? zoomGraph(0.8) : scope.zoom(1 / 0.6)),
  panLeft: () => (look.view === "graph" ? $("graph").scrollBy(-120, 0) : scope.pan(-0.2)),
  panRight: () => (look.view === "graph" ? $("graph").scrollBy(120, 0) : scope.pan(0.2)),
  fit: () => (look.view === "graph" ? fitGraph() : scope.fit()),
  play,
  slower: () => setSpeed(-1),
  faster: () => setSpeed(1),
  speed: () => setSpeed(look.speed === SPEEDS.length - 1 ? -SPEEDS.length : 1),
  follow: () => { if (timeline.grows) go({ follow: !look.follow }, true); },
  pin: () => go({ follow: false }, true),
  new: () => go({ at: timeline.seq, follow: timeline.grows }, true),
  mark: () => go({ mark: look.mark === look.at ? null : look.at }, true),
  compare: () => { if (look.mark !== null) go({ pane: "diff", step: -1 }, true); },
  filter: () => { setList("events"); document.querySelector("[data-filter] input").focus(); },
  lineBack: () => stepLine("back"),
  lineNext: () => stepLine("step"),
  overBack: () => stepLine("previous"),
  overNext: () => stepLine("next"),
  outBack: () => stepLine("rout"),
  outNext: () => stepLine("out"),
  search: () => { setList("found"); search.field.focus(); search.field.select(); },
  nextHit: () => search.step(1),
  prevHit: () => search.step(-1),
  origin: () => ask("back"),
  uses: () => ask("forward"),
  copy: () => copyText(location.origin + address().replace("at=live", `at=${look.at}`), document.querySelector("[data-copy-here]")),
  fork: () => {
    if (!document.querySelector("[data-do=fork]")) return;
    const step = look.step >= 0 ? look.step : timeline.stepOf(look.at || 1);
    const facts = { view: look.view, open: [...opened].join(",") };
    if (step >= 0) facts.from = timeline.steps[step];
    openFork($("fork"), base, facts);
  },
  replay: () => {
    const button = document.querySelector("[data-replay]");
    if (!button) return;
    button.closest("details").open = true;
    copyText(button.dataset.copy, button);
    lastSpoken = 0;
    speak(`copied: ${button.dataset.copy}`);
  },
  help: () => { const help = $("help"); if (help.open) help.close(); else help.showModal(); },
  escape: () => {
    if ($("help").open) return $("help").close();
    const menu = document.querySelector("main details.menu[open]");
    if (menu) { menu.open = false; return menu.querySelector("summary").focus(); }
    const field = document.querySelector("[data-filter] input");
    if (document.activeElement === field && !field.value) return field.blur();
    if (document.activeElement === search.field) return search.field.value ? clearSearch() : leaveSearch();
    if (look.origin) return go({ origin: "", value: "", path: "", isShown: true }, true);
    if (look.list === "found") return leaveSearch();
    if (look.filter) { field.value = ""; setFilter(""); field.blur(); } else if (look.playing) stop();
  },
};

function ask(direction) {
  const place = places.current();
  if (place) return trace(place, direction);
  if (look.origin) go({ origin: direction, isShown: true }, true);
}

// -- search

function setList(name) {
  look.list = name;
  const isSearch = name === "found";
  $("events").hidden = isSearch;
  $("found").hidden = !isSearch;
  document.querySelector("[data-filter]").hidden = isSearch;
  document.querySelector("[data-search]").hidden = !isSearch;
  for (const link of document.querySelectorAll("[data-list]")) {
    if (link.dataset.list === name) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  if (!isSearch) reveal(true);
  repaint();
}

function searched() {
  clearTimeout(urlTimer);
  urlTimer = setTimeout(() => writeUrl(false), 220);
  repaint();
}

function clearSearch() {
  search.field.value = "";
  search.ask("");
}

function leaveSearch() {
  clearSearch();
  search.field.blur();
  setList("events");
}

function setFilter(text) {
  look.filter = text;
  applyFilter();
  reveal();
  go({});
}

// -- listening

function listen(field) {
  showKeys(document.querySelector("[data-keys]"));
  document.addEventListener("keydown", (event) => {
    const asked = actionOf(event);
    if (!asked) return;
    const [action, key] = asked;
    if ($("fork").open) return;
    if ($("help").open && action !== "help" && action !== "escape") return;
    event.preventDefault();
    ACTIONS[action](key);
  });
  document.addEventListener("click", clicked);
  field.form.addEventListener("submit", (event) => event.preventDefault());
  field.addEventListener("input", () => setFilter(field.value));
  document.addEventListener("kairos:theme", recolour);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
}

function recolour() {
  scope.readColours();
  repaint();
}

function clicked(event) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  const target = event.target.closest("a, button");
  if (!target || !main.contains(target) && !target.closest("dialog") || target.closest("#fork")) return;
  const { dataset } = target;
  if (target.matches(".tree a.v")) {
    const place = placeOf(target);
    if (place) event.preventDefault();
    // Whoever selects a text wants that text.
    return place && !String(getSelection()).trim() ? trace(place, "back") : undefined;
  }
  if (dataset.list) {
    event.preventDefault();
    if (dataset.list === "found") return ACTIONS.search();
    return leaveSearch();
  }
  if (dataset.trace) { event.preventDefault(); return go({ origin: dataset.trace, isShown: true }, true); }
  if ("untrace" in dataset) {
    event.preventDefault();
    return go({ origin: "", value: "", path: "", isShown: true }, true);
  }
  if (target.matches("[data-copy-here]")) return ACTIONS.copy();
  if (dataset.do) { event.preventDefault(); return ACTIONS[dataset.do](); }
  if (dataset.scale) return setScale(dataset.scale);
  if (dataset.seq) {
    event.preventDefault();
    const seq = Number(dataset.seq), step = timeline.stepOf(seq);
    return go({ at: seq, follow: false, ...(step >= 0 && step !== look.step ? { step, attempt: null } : {}) }, true);
  }
  if (target.matches("a.node")) {
    event.preventDefault();
    if (dataset.group) return openGroup(dataset.group);
    return go({ step: Number(dataset.i), attempt: null }, true);
  }
  if (target.closest(".switch") && dataset.view) {
    event.preventDefault();
    setView(dataset.view);
    writeUrl(true);
    return repaint();
  }
  const change = {};
  if (dataset.at !== undefined) { change.at = Number(dataset.at); change.follow = false; }
  if (dataset.step !== undefined) {
    change.step = timeline.number.get(dataset.step) ?? -1;
    change.attempt = null;
    if (change.step < 0) change.pane = "summary";
  }
  if (dataset.attempt !== undefined) change.attempt = Number(dataset.attempt) || null;
  if (dataset.value !== undefined) { change.value = dataset.value; change.path = dataset.path; }
  if (dataset.pane !== undefined) change.pane = dataset.pane;
  if (dataset.place !== undefined) change.line = dataset.place;
  if (!Object.keys(change).length) return;
  event.preventDefault();
  if ("hit" in dataset) { change.origin = ""; search.choose(target); }
  go(change, true);
}

function setScale(scale) {
  scope.setScale(scale);
  for (const button of document.querySelectorAll("[data-scale]")) {
    button.setAttribute("aria-pressed", String(button.dataset.scale === scale));
  }
}

// -- a run that goes on

function news(count) {
  const wasFit = scope.isFit;
  if (look.filter) applyFilter(); else list.resize(timeline.seq);
  if (wasFit) scope.fit();
  if (look.follow) {
    look.at = timeline.seq;
    reveal();
    askPane();
  } else {
    fresh += count;
  }
  if (look.q) search.refresh();
  speak(`${number(timeline.seq)} events`);
  repaint();
}

async function ended() {
  document.querySelector("[data-do=follow]").hidden = true;
  look.follow = false;
  await refreshHead();
  wantedPane = "";
  askPane();
  repaint();
}

async function refreshHead() {
  const answer = await fetch(`${base}/head`, { headers: { "HX-Request": "true" } });
  if (!answer.ok) return;
  const held = document.createElement("template");
  held.innerHTML = await answer.text();
  const head = document.querySelector(".head");
  if (window.Idiomorph) window.Idiomorph.morph(head, held.content.firstElementChild, { morphStyle: "outerHTML" });
  else head.replaceWith(held.content);
  const button = document.querySelector("[data-copy-here]");
  if (button) button.hidden = false;
}

setInterval(() => { if (timeline?.grows && !document.hidden) refreshHead(); }, 5000);

function showStream(state) {
  if (state === streamState) return;
  streamState = state;
  const badge = $("stream");
  badge.hidden = false;
  badge.className = `stream is-${state}`;
  badge.textContent = state === "live" ? "live" : state === "lost" ? "reconnecting" : "ended";
  badge.title = state === "lost" ? `The stream is lost; this is the run up to #${number(timeline.seq)}.` : "";
}
