// The stream of a run that goes on. Ours instead of the browser's reconnect: that one gives up for good after a single
// refused answer, and a new one would not say where it stands.

export class Live {
  constructor(base, timeline, { onNews, onEnd, onResync, onState }) {
    this.base = base;
    this.timeline = timeline;
    this.on = { onNews, onEnd, onResync, onState };
    this.tries = 0;
    this.done = false;
    this.source = null;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.connect()));
    addEventListener("pagehide", () => this.close());
    addEventListener("pageshow", (event) => { if (event.persisted) this.connect(); });
    this.connect();
  }

  close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  connect() {
    this.close();
    if (this.done || document.hidden) return;
    const source = (this.source = new EventSource(`${this.base}/live?after=${this.timeline.seq}`));
    source.onopen = () => { this.tries = 0; this.on.onState("live"); };
    source.addEventListener("events", (event) => {
      const columns = JSON.parse(event.data);
      if (columns.seq <= this.timeline.seq) return;
      if (this.timeline.append(columns)) this.on.onNews(columns.seq - columns.after);
      else this.connect();
    });
    source.addEventListener("resync", () => { this.close(); this.on.onResync(); });
    source.addEventListener("end", () => { this.done = true; this.close(); this.on.onState("ended"); this.on.onEnd(); });
    source.onerror = () => {
      this.close();
      this.on.onState("lost");
      const wait = Math.min(5000, 250 * 2 ** this.tries++) * (0.7 + 0.6 * Math.random());
      this.timer = setTimeout(() => this.connect(), wait);
    };
  }
}
