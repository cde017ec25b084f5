// The form of a fork: planned anew whenever something of it changes, and shown in a dialog of the run page.

const PAUSE = 350;  // milliseconds without a key press before the plan is asked for
let timer = 0, asked = 0, under = null;
let shown = "";  // the fork point that was brought into sight

const isOfFork = (element) => element?.closest?.("form[data-fork]");

document.addEventListener("input", (event) => {
  const form = isOfFork(event.target);
  if (!form || "quiet" in event.target.dataset) return;
  asked++;
  clearTimeout(timer);
  const isChoice = event.target.matches("select, [type=checkbox]");
  timer = setTimeout(() => send(form, "plan"), isChoice ? 0 : PAUSE);
});

document.addEventListener("submit", (event) => {
  const form = isOfFork(event.target);
  if (!form) return;
  event.preventDefault();
  const what = event.submitter?.value ?? "plan";
  clearTimeout(timer);
  asked++;
  send(form, what);
});

document.addEventListener("click", (event) => {
  const node = event.target.closest?.(".fork-graph a");
  if (!node || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  const form = document.querySelector("form[data-fork]");
  const { from, open } = form.elements;
  if (node.dataset.group) open.value = [open.value, node.dataset.group].filter(Boolean).join(",");
  else from.value = node.dataset.from;
  asked++;
  send(form, "plan");
});

// What was typed goes to the server, and the form comes back with the plan and with what is wrong.
async function send(form, what) {
  const number = asked, isStart = what === "fork";
  const facts = new URLSearchParams(new FormData(form));
  facts.set("do", what);
  under?.abort();
  const control = (under = new AbortController());
  form.classList.add("busy");
  for (const button of isStart ? form.querySelectorAll("[type=submit]") : []) button.disabled = true;
  try {
    const answer = await fetch(form.action, {
      method: "POST", body: facts, headers: { "HX-Request": "true" }, signal: control.signal,
    });
    const target = answer.headers.get("HX-Redirect");
    if (target) return location.assign(target);
    const html = await answer.text();
    // Something was typed since: a later answer will fit, this one would undo it.
    if (number !== asked) return;
    if (answer.ok || answer.status === 422) show(form, html, isStart);
    else complain(form, html);
  } catch (error) {
    if (error.name !== "AbortError") complain(form, "");
  } finally {
    form.classList.remove("busy");
    for (const button of form.querySelectorAll("[type=submit]:disabled")) button.disabled = false;
  }
}

function show(form, html, isStart) {
  const held = document.createElement("template");
  held.innerHTML = html;
  // What somebody types into is left alone; a button or a node that has the focus is not.
  const ignoreActiveValue = Boolean(document.activeElement?.matches("input, textarea, select"));
  window.Idiomorph.morph(form, held.content.querySelector("form"), { morphStyle: "outerHTML", ignoreActiveValue });
  prepare();
  if (!isStart) return;
  // Asked to start, and refused: to what is wrong.
  const wrong = form.querySelector(".field.wrong, .problem");
  for (let part = wrong?.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
  wrong?.scrollIntoView({ block: "center" });
  wrong?.querySelector("input, select, textarea")?.focus();
}

function complain(form, html) {
  const plan = form.querySelector(".fork-plan"), held = document.createElement("template");
  held.innerHTML = html;
  const said = held.content.querySelector(".empty") ?? document.createElement("p");
  if (!said.firstChild) { said.className = "problem"; said.textContent = "The server does not answer. Nothing was started; try again."; }
  plan.replaceChildren(said);
}

// With a script the plan is asked for by itself.
function prepare() {
  for (const button of document.querySelectorAll("form[data-fork] [data-plain]")) button.hidden = true;
  fit();
}

// As large as there is room, and never so small that names cannot be read.
function fit() {
  const svg = document.querySelector(".fork-graph"), box = svg?.viewBox.baseVal;
  if (!svg) return;
  const room = svg.parentElement.clientWidth - 4;
  const scale = Math.min(1, Math.max(0.6, room / box.width));
  svg.setAttribute("width", box.width * scale);
  svg.setAttribute("height", box.height * scale);
  const from = svg.querySelector(".b-from .box");
  if (!from || shown === from.closest("a").dataset.from) return;
  shown = from.closest("a").dataset.from;
  svg.parentElement.scrollLeft = from.x.baseVal.value * scale - room / 2;
  svg.parentElement.scrollTop = from.y.baseVal.value * scale - svg.parentElement.clientHeight / 2;
}
addEventListener("resize", fit);

// The dialog of the run page, for this step.
export async function openFork(dialog, base, facts) {
  const body = dialog.querySelector("[data-body]");
  body.textContent = "Reading the run …";
  if (!dialog.open) dialog.showModal();
  try {
    const answer = await fetch(`${base}/fork?${new URLSearchParams(facts)}`, { headers: { "HX-Request": "true" } });
    const held = document.createElement("template");
    held.innerHTML = await answer.text();
    body.replaceChildren(held.content);
    shown = "";
  } catch {
    body.textContent = "The server does not answer. Nothing was started.";
  }
  prepare();
  body.querySelector("select, input:not([type=hidden])")?.focus();
}

prepare();
