// Search in the values of a run: the server finds, this shows, steps from hit to hit, and knows which events hold one.

export class Search {
  // `go(place)` moves the page to a hit; `changed()` is told when the hits are others.
  constructor({ base, form, list, look, go, changed }) {
    Object.assign(this, { base, form, list, look, go, changed });
    this.field = form.elements.q;
    this.here = null;
    this.timer = this.later = 0;
    this.asked = look.q;
    form.addEventListener("submit", (event) => { event.preventDefault(); this.ask(this.field.value, true); });
    this.field.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.ask(this.field.value), 180);
    });
    this.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") { event.preventDefault(); this.submit(); }
    });
    list.addEventListener("htmx:afterSettle", () => this.read());
    this.read();
  }

  // Enter: what stands in the field now; when that is shown already, the next hit.
  async submit() {
    clearTimeout(this.timer);
    if (this.field.value.trim() === this.asked) return this.step(1);
    await this.ask(this.field.value);
    this.step(1);
  }

  async ask(text) {
    const wanted = text.trim();
    if (wanted === this.asked) return;
    this.asked = this.look.q = wanted;
    this.here = null;
    if (!wanted) {
      this.list.replaceChildren();
      return this.read();
    }
    const answer = await fetch(`${this.base}/search?${new URLSearchParams({ q: wanted, at: this.look.at })}`, {
      headers: { "HX-Request": "true" },
    });
    if (wanted !== this.asked) return;
    const held = document.createElement("template");
    held.innerHTML = await answer.text();
    this.list.replaceChildren(held.content);
    window.htmx?.process(this.list);
    this.list.scrollTop = 0;
    this.read();
  }

  // Live: something new has come. Asked again at most every two seconds, and nothing is moved from under the eyes.
  refresh() {
    if (!this.asked || this.later) return;
    this.later = setTimeout(async () => {
      this.later = 0;
      const text = this.asked, top = this.list.scrollTop, index = this.hits.indexOf(this.here);
      if (!text) return;
      this.asked = "";
      await this.ask(text);
      this.here = this.hits[index] ?? null;
      this.list.scrollTop = top;
      this.mark();
    }, 2000);
  }

  read() {
    const tally = this.list.querySelector(".tally");
    this.count = Number(tally?.dataset.count ?? 0);
    this.seqs = (tally?.dataset.seqs ?? "").split(",").filter(Boolean).map(Number);
    this.form.querySelector(".steps-of-hits").hidden = !this.count;
    this.mark();
    this.changed();
  }

  get hits() { return [...this.list.querySelectorAll("[data-hit]")]; }

  // The hit that is looked at: the one at the place of the page; then the one that was chosen last.
  mark() {
    const { look } = this;
    for (const hit of this.hits) {
      hit.classList.toggle("future", Number(hit.dataset.at) > look.at);
      const isHere = hit === this.here;
      hit.classList.toggle("here", isHere);
      if (isHere) hit.setAttribute("aria-current", "true"); else hit.removeAttribute("aria-current");
    }
  }

  choose(hit) {
    this.here = hit;
    hit.scrollIntoView({ block: "nearest" });
    this.mark();
  }

  async step(by) {
    let hits = this.hits;
    if (!hits.length) return;
    let index = this.here ? hits.indexOf(this.here) + by : by > 0 ? this.nearest(hits) : hits.length - 1;
    if (index >= hits.length && (await this.more())) hits = this.hits;
    index = (index + hits.length) % hits.length;
    this.choose(hits[index]);
    this.go(hits[index]);
  }

  // Without a hit that was chosen: the first one at the playhead or behind it.
  nearest(hits) {
    const found = hits.findIndex((hit) => Number(hit.dataset.at) >= this.look.at);
    return found < 0 ? 0 : found;
  }

  async more() {
    const link = this.list.querySelector("[data-more]");
    if (!link) return false;
    const answer = await fetch(link.getAttribute("hx-get"), { headers: { "HX-Request": "true" } });
    if (!answer.ok || !link.isConnected) return false;
    const held = document.createElement("template");
    held.innerHTML = await answer.text();
    link.closest("p").replaceWith(held.content);
    window.htmx?.process(this.list);
    return true;
  }
}
