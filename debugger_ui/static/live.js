// What is new in a run that goes on. A stream of ours instead of the browser's reconnect: that one gives up for good after
// a single refused answer, and a new one would not say where it stands.
//
// A browser keeps six connections to one host, and a stream holds one for as long as it is open: the seventh page would
// never load. So all pages together hold four, and those beyond ask every second.

const STREAMS = 4;
const POLL = 1000;

export class Live {
  constructor(base, timeline, { onNews, onEnd, onResync, onState }) {
    this.base = base;
    this.timeline = timeline;
    this.on = { onNews, onEnd, onResync, onState };
    this.tries = 0;
    this.turn = 0;
    this.done = false;
    this.source = null;
    this.release = null;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.connect()));
    addEventListener("pagehide", () => this.close());
    addEventListener("pageshow", (event) => { if (event.persisted) this.connect(); });
    this.connect();
  }

  close() {
    this.turn++;
    clearTimeout(this.timer);
    this.source?.close();
    this.release?.();
    this.source = this.release = null;
  }

  async connect() {
    this.close();
    if (this.done || document.hidden) return;
    const turn = this.turn, release = await takeStream();
    if (turn !== this.turn) release?.();
    else if (release) this.open(release);
    else this.poll(turn);
  }

  open(release) {
    this.release = release;
    const source = (this.source = new EventSource(`${this.base}/live?after=${this.timeline.seq}`));
    source.onopen = () => { this.tries = 0; this.on.onState("live"); };
    source.addEventListener("events", (event) => {
      if (!this.take(JSON.parse(event.data))) this.connect();
    });
    source.addEventListener("resync", () => { this.close(); this.on.onResync(); });
    source.addEventListener("end", () => this.end());
    source.onerror = () => this.retry();
  }

  async poll(turn) {
    try {
      const answer = await fetch(`${this.base}/index.json?after=${this.timeline.seq}`);
      if (turn !== this.turn) return;
      if (answer.status === 404 || answer.status === 410) { this.end(); return; }
      if (!answer.ok) throw new Error(answer.status);
      const columns = await answer.json();
      if (turn !== this.turn) return;
      this.tries = 0;
      this.on.onState("live");
      if (columns.seq < this.timeline.seq) { this.close(); this.on.onResync(); return; }
      this.take(columns);
      if (this.timeline.over) this.end();
      else this.timer = setTimeout(() => this.connect(), POLL);  // perhaps a stream is free by then
    } catch {
      if (turn === this.turn) this.retry();
    }
  }

  // False if something lies between what is known and what came.
  take(columns) {
    if (columns.seq <= this.timeline.seq) return true;
    if (!this.timeline.append(columns)) return false;
    this.on.onNews(columns.seq - columns.after);
    return true;
  }

  end() {
    this.done = true;
    this.close();
    this.on.onState("ended");
    this.on.onEnd();
  }

  retry() {
    this.close();
    this.on.onState("lost");
    const wait = Math.min(5000, 250 * 2 ** this.tries++) * (0.7 + 0.6 * Math.random());
    this.timer = setTimeout(() => this.connect(), wait);
  }
}

// A function that gives one of the streams back; null if all are taken. Where pages cannot be counted, each has one.
async function takeStream() {
  if (!navigator.locks) return () => {};
  for (let number = 0; number < STREAMS; number++) {
    const release = await new Promise((found) => {
      navigator.locks.request(`kairos-stream-${number}`, { ifAvailable: true }, (lock) => {
        if (!lock) { found(null); return undefined; }
        return new Promise((free) => found(free));
      }).catch(() => found(null));
    });
    if (release) return release;
  }
  return null;
}
