// How numbers and moments are written; as `words.py` does it.

const group = new Intl.NumberFormat("en-US");
export const number = (value) => group.format(value);

export function offset(micros) {
  const seconds = Math.max(micros / 1e6, 0);
  if (seconds < 59.9995) return `+${seconds.toFixed(3)}s`;
  const tenths = Math.floor(seconds * 10), minutes = Math.floor(tenths / 600), rest = tenths % 600;
  if (minutes < 60) return `+${minutes}:${two(Math.floor(rest / 10))}.${rest % 10}`;
  return `+${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(Math.floor(rest / 10))}`;
}

export function clock(micros) {
  return new Date(micros / 1000).toISOString().replace("T", " ").replace("Z", "") + " UTC";
}

export function span(micros) {
  const seconds = micros / 1e6;
  if (seconds < 0.001) return `${Math.round(micros)} µs`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${Number(seconds.toPrecision(3))} s`;
  for (const [big, unit, small, rest] of [[86400, "d", 3600, "h"], [3600, "h", 60, "m"], [60, "m", 1, "s"]]) {
    if (seconds < big) continue;
    const left = Math.floor((seconds % big) / small);
    return `${Math.floor(seconds / big)} ${unit}${left ? ` ${left} ${rest}` : ""}`;
  }
  return "0";
}

export const kindWords = (kind) => kind.replaceAll("_", " ");
const two = (value) => String(value).padStart(2, "0");

const FAILURES = new Set(["step_failed", "step_dead", "step_expired", "lease_lost", "run_failed", "run_expired",
  "stale_write_rejected"]);
export const isFailure = (kind) => FAILURES.has(kind);
