// A line trace: every step is one small question to the server, which knows the rules of stepping. One question is under
// way at a time; steps that are asked for meanwhile are added up, so a key that is held down cannot pile them.

export class TraceView {
  // `onPlace(place, isDeliberate)`: where it stands now, for the address.
  constructor(root, onPlace) {
    this.root = root;
    this.href = root.dataset.trace;
    this.onPlace = onPlace;
    this.asked = null;
    this.busy = false;
    this.spokenAt = 0;
    root.addEventListener("click", (event) => this.clicked(event));
    root.addEventListener("submit", (event) => this.submitted(event));
    root.addEventListener("input", ({ target }) => { if (target === this.slide) this.ask({ at: target.value }); });
    this.mark();
  }

  get slide() { return this.root.querySelector("[data-slide]"); }
  get stop() { return this.root.querySelector(".stop"); }
  get here() { return Number(this.stop.dataset.at); }

  move(way) {
    const { asked } = this;
    if (asked?.move === way) asked.times = Math.min((asked.times ?? 1) + 1, 1000);
    else this.ask({ at: this.here, level: this.stop.dataset.level, move: way });
  }

  // The newest question counts; one that is under way is answered first.
  ask(question, isDeliberate = false) {
    this.asked = { ...question };
    this.deliberate = isDeliberate;
    if (!this.busy) this.answer();
  }

  async answer() {
    this.busy = true;
    while (this.asked) {
      const question = this.asked, isDeliberate = this.deliberate;
      this.asked = null;
      if (question.move) { question.at = this.here; question.level = this.stop.dataset.level; }
      const html = await this.fetch("moment", question);
      if (html === null) break;
      this.root.querySelector("[data-moment]").replaceChildren(html);
      await this.showFile();
      this.mark();
      this.speak();
      if (this.root.isConnected) this.onPlace(this.stop.dataset.place, isDeliberate);
    }
    this.busy = false;
  }

  async fetch(what, facts) {
    const wanted = new URLSearchParams(Object.entries(facts).filter(([, value]) => value !== undefined && value !== ""));
    const answer = await fetch(`${this.href}/${what}?${wanted}`, { headers: { "HX-Request": "true" } }).catch(() => null);
    const held = document.createElement("template");
    if (!answer) return this.say("The debugger does not answer.");
    held.innerHTML = await answer.text();
    if (!answer.ok) return this.say(held.content.textContent.trim());
    return held.content;
  }

  say(text) {
    const line = document.createElement("p");
    line.className = "notice";
    line.setAttribute("role", "status");
    line.textContent = text;
    this.stop.querySelector(".notice")?.remove();
    this.stop.prepend(line);
    return null;
  }

  async showFile() {
    const code = this.root.querySelector(".trace-code"), shown = code.querySelector("[data-file]");
    if (shown?.dataset.file === this.stop.dataset.file) return;
    const html = await this.fetch("source", { file: this.stop.dataset.file });
    if (html) code.replaceChildren(html);
  }

  // Mark the line, bring it into sight, and say where this is.
  mark() {
    const { dataset } = this.stop, code = this.root.querySelector(".trace-code");
    for (const old of code.querySelectorAll(".now, .wrote")) {
      if (old.matches(".wrote")) old.remove();
      else { old.classList.remove("now", "raises"); old.removeAttribute("aria-current"); }
    }
    const line = code.querySelector(`[data-line="${Number(dataset.line)}"]`);
    if (line) {
      line.classList.add("now");
      line.classList.toggle("raises", dataset.bad === "1");
      line.setAttribute("aria-current", "true");
      reveal(code, line);
    }
    const wrote = dataset.wroteLine && code.querySelector(`[data-line="${Number(dataset.wroteLine)}"]`);
    if (wrote) {
      const text = document.createElement("span");
      text.className = "wrote";
      text.textContent = dataset.wrote;
      wrote.append(text);
    }
    this.root.querySelector("[data-here]").textContent = Number(dataset.at).toLocaleString("en-US");
    const { slide } = this;
    slide.hidden = false;
    if (!this.asked) slide.value = dataset.at;
    slide.setAttribute("aria-valuetext", `event ${dataset.at} of ${dataset.of}, ${dataset.says}`);
    this.markHits();
  }

  speak() {
    if (performance.now() - this.spokenAt < 1500) return;
    this.spokenAt = performance.now();
    this.root.querySelector("[data-spoken]").textContent = this.stop.dataset.says;
  }

  markHits() {
    for (const link of this.root.querySelectorAll("[data-hits] [data-place]")) {
      const isHere = link.dataset.place === this.stop.dataset.place;
      link.parentElement.classList.toggle("now", isHere);
      if (isHere) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  async probe(place, name = "", start = undefined) {
    const html = await this.fetch("hits", { at: this.here, probe: place, name, start });
    if (!html) return;
    const box = this.root.querySelector("[data-hits]");
    const hadFocus = box.contains(document.activeElement) && document.activeElement.name === "name";
    box.replaceChildren(html);
    this.markHits();
    box.querySelector(".now")?.scrollIntoView({ block: "nearest" });
    if (hadFocus) box.querySelector("[name=name]").focus();
  }

  clicked(event) {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    const link = event.target.closest("a");
    const { dataset } = link ?? event.target.closest("li[data-line]") ?? { dataset: {} };
    if (!link) {
      // Anywhere on a line that ran, unless a text is being marked.
      if (dataset.line && String(getSelection()) === "") event.target.closest("li").querySelector("a[data-probe]")?.click();
      return;
    }
    const stop = this.stop.dataset;
    if (dataset.move) this.ask({ at: stop.at, level: stop.level, move: dataset.move });
    else if (dataset.write) this.ask({ at: stop.at, level: stop.level, write: dataset.write }, true);
    else if (dataset.toLevel) this.ask({ at: stop.at, level: dataset.toLevel });
    else if (dataset.place) this.ask({ line: dataset.place }, true);
    else if (dataset.probe) this.probe(dataset.probe, this.root.querySelector("[data-hits] [name=name]")?.value);
    else if ("probeMore" in dataset) {
      const facts = new URL(link.href).searchParams;
      this.probe(facts.get("probe"), facts.get("name") ?? "", facts.get("start"));
    } else if ("probeClose" in dataset) this.root.querySelector("[data-hits]").replaceChildren();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  submitted(event) {
    event.preventDefault();
    this.probe(event.target.elements.probe.value, event.target.elements.name.value);
  }
}

function reveal(box, line) {
  if (box.scrollHeight <= box.clientHeight) return;
  const top = line.offsetTop - box.offsetTop, margin = Math.min(72, box.clientHeight / 4);
  if (top - margin < box.scrollTop) box.scrollTop = top - margin;
  else if (top + line.offsetHeight + margin > box.scrollTop + box.clientHeight) {
    box.scrollTop = top + line.offsetHeight + margin - box.clientHeight;
  }
}
