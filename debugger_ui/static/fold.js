// The past of a run, folded here. This file knows no rule of the state machines: which event moves what stands in the
// table that the server made from its own. Statuses are numbers: places in `machine.steps` and `machine.runs`.

const EVERY = 256;
const NONE = 255;

class Column {
  constructor(type, size = 1024) { this.data = new type(size); this.length = 0; }
  push(value) {
    if (this.length === this.data.length) {
      const larger = new this.data.constructor(this.length * 2);
      larger.set(this.data);
      this.data = larger;
    }
    this.data[this.length++] = value;
  }
}

export class Timeline {
  constructor(machine, graph) {
    this.machine = machine;
    this.steps = graph.steps;
    this.needs = graph.needs;
    this.groups = graph.groups;
    this.number = new Map(graph.steps.map((name, i) => [name, i]));
    this.below = graph.steps.map(() => []);
    graph.needs.forEach((ups, i) => ups.forEach((up) => this.below[up].push(i)));
    const step = Object.fromEntries(machine.steps.map((name, i) => [name, i]));
    const run = Object.fromEntries(machine.runs.map((name, i) => [name, i]));
    this.status = step;
    this.runStatus = run;
    this.stepMoves = numbered(machine.stepMoves, step);
    this.runMoves = numbered(machine.runMoves, run);
    this.kinds = [];
    this.kind = new Column(Uint8Array);     // NONE: a kind that the server does not know
    this.step = new Column(Int32Array);     // -1: of the run itself
    this.attempt = new Column(Uint16Array);
    this.time = new Column(Float64Array);   // microseconds since 1970
    this.many = new Map();
    this.notes = new Map();
    this.bySteps = graph.steps.map(() => []);
    this.segments = graph.steps.map(() => []);
    this.over = false;
    this.grows = true;
    this.frames = [this.blank()];
    this.tip = this.blank();
    this.cursor = null;
  }

  get seq() { return this.kind.length; }
  kindOf(seq) { return this.kinds[this.kind.data[seq - 1]] ?? "unknown"; }
  stepOf(seq) { return this.step.data[seq - 1]; }
  attemptOf(seq) { return this.attempt.data[seq - 1]; }
  timeOf(seq) { return this.time.data[Math.max(seq, 1) - 1]; }

  blank() {
    const count = this.steps.length;
    const waiting = new Int32Array(count);
    this.needs.forEach((ups, i) => { waiting[i] = new Set(ups).size; });
    return { seq: 0, run: this.runStatus.SCHEDULED, cancelling: false,
      status: new Uint8Array(count).fill(this.status.PENDING), attempt: new Uint16Array(count), waiting };
  }

  // Take columns that begin where this timeline ends; anything else is refused, and answers false.
  append(columns) {
    if (columns.after !== this.seq) return false;
    this.kinds = columns.kinds;
    let time = this.seq ? this.timeOf(this.seq) : 0;
    for (const [seq, steps] of Object.entries(columns.many)) this.many.set(Number(seq), steps);
    for (const [seq, text] of Object.entries(columns.notes)) this.notes.set(Number(seq), text);
    for (let i = 0; i < columns.kind.length; i++) {
      time += columns.t[i];
      this.kind.push(columns.kind[i] < 0 ? NONE : columns.kind[i]);
      this.step.push(columns.step[i]);
      this.attempt.push(columns.attempt[i]);
      this.time.push(time);
      const seq = this.seq;
      if (columns.step[i] >= 0) this.bySteps[columns.step[i]].push(seq);
      for (const step of this.many.get(seq) ?? []) this.bySteps[step].push(seq);
      this.apply(this.tip, seq, (step, before, after) => this.noteMove(step, after, seq));
      if (seq % EVERY === 0) this.frames.push(copied(this.tip));
    }
    this.over = columns.over;
    this.grows = columns.grows;
    this.cursor = null;
    return true;
  }

  // The state after event `seq` (0: before the first). The answer is reused: look at it, do not keep it.
  stateAt(seq) {
    const wanted = Math.max(0, Math.min(seq, this.seq));
    let state = this.cursor;
    if (!state || state.seq > wanted || wanted - state.seq > EVERY) {
      const frame = this.frames[Math.floor(wanted / EVERY)];
      if (!state) state = this.cursor = copied(frame);
      else restore(state, frame);
    }
    while (state.seq < wanted) this.apply(state, state.seq + 1);
    return state;
  }

  apply(state, seq, onMove) {
    const kind = this.kindOf(seq);
    const step = this.step.data[seq - 1];
    state.seq = seq;
    if (kind === "run_scheduled") {
      this.needs.forEach((ups, i) => { if (!ups.length) this.move(state, i, "upstream_done", onMove); });
    } else if (kind === "steps_inherited") {
      for (const one of this.many.get(seq) ?? []) this.move(state, one, "step_inherited", onMove);
    } else if (step >= 0) {
      if (kind === "step_started") state.attempt[step] = this.attempt.data[seq - 1];
      this.move(state, step, kind, onMove);
    } else if (kind === "run_cancel_requested") {
      state.cancelling = true;
    } else {
      const after = this.runMoves.get(kind)?.[state.run];
      if (after !== undefined) state.run = after;
    }
  }

  move(state, step, kind, onMove) {
    const before = state.status[step];
    const after = this.stepMoves.get(kind)?.[before];
    if (after === undefined) return;
    state.status[step] = after;
    onMove?.(step, before, after);
    if (after !== this.status.DONE) return;
    for (const below of this.below[step]) {
      if (--state.waiting[below] === 0) this.move(state, below, "upstream_done", onMove);
    }
  }

  // Lengths of time in one status: what lanes are drawn from. `to` is 0 while it lasts.
  noteMove(step, after, seq) {
    const list = this.segments[step];
    const last = list[list.length - 1];
    if (last && !last.to) { last.to = seq; last.end = this.kindOf(seq); }
    list.push({ status: after, from: seq, to: 0, end: "" });
  }
}

function numbered(moves, place) {
  const byKind = new Map();
  for (const [before, kinds] of Object.entries(moves)) {
    for (const [kind, after] of Object.entries(kinds)) {
      if (!byKind.has(kind)) byKind.set(kind, []);
      byKind.get(kind)[place[before]] = place[after];
    }
  }
  return byKind;
}

function copied(state) {
  return { ...state, status: state.status.slice(), attempt: state.attempt.slice(), waiting: state.waiting.slice() };
}

function restore(state, frame) {
  state.seq = frame.seq;
  state.run = frame.run;
  state.cancelling = frame.cancelling;
  state.status.set(frame.status);
  state.attempt.set(frame.attempt);
  state.waiting.set(frame.waiting);
}
