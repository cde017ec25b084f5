// The list of runs: what is shown changes in place, what is new is counted, and keys lead through it.

const EVERY = 3000;
const KEYS = [["J K", "move"], ["Enter", "open"], ["N", "newest"], ["[ ]", "newer, older"], ["/", "find"]];

const table = document.querySelector("[data-runs]");
const pill = document.querySelector(".news");
const links = () => [...document.querySelectorAll("[data-runs] a.row")];
let busy = false;

async function look() {
  const place = table?.dataset.news ?? document.querySelector("[data-empty-list]")?.dataset.emptyList;
  if (!place || busy || document.hidden) return;
  busy = true;
  try {
    const address = new URL(place, location.href);
    if (table) address.searchParams.set("ids", [...table.tBodies[0].rows].map((r) => `${r.id.slice(2)}:${r.dataset.seq}`).join(","));
    if (table ? table.dataset.top : true) address.searchParams.set("top", table?.dataset.top ?? "00000000-0000-0000-0000-000000000000");
    const answer = await fetch(address, { headers: { "HX-Request": "true" }, signal: AbortSignal.timeout(10000) });
    if (answer.ok) show(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch { /* the database or the server is away: the next look may find it */ } finally {
    busy = false;
  }
}

function show(news) {
  const told = news.querySelector("[data-newer]"), count = Number(told.dataset.newer);
  if (!table) {
    if (count) location.reload();
    return;
  }
  for (const fresh of news.querySelectorAll("tr")) {
    const old = document.getElementById(fresh.id);
    if (!old) continue;
    const hadFocus = old.contains(document.activeElement);
    fresh.classList.add("moved");
    old.replaceWith(fresh);
    if (hadFocus) fresh.querySelector("a.row")?.focus({ preventScroll: true });
  }
  for (const id of told.dataset.gone.split(",").filter(Boolean)) document.getElementById(`r-${id}`)?.classList.add("gone");
  if (!count) return;
  const text = `${count}${"more" in told.dataset ? "+" : ""} new`;
  if (pill.firstElementChild.textContent !== text) pill.firstElementChild.textContent = text;
  pill.hidden = false;
}

function ages() {
  for (const time of document.querySelectorAll("time[data-ago]")) time.textContent = ago(Date.parse(time.dateTime));
}

// As `words.ago` writes it.
function ago(then) {
  const seconds = (Date.now() - then) / 1000, length = Math.abs(seconds);
  if (length < 1) return "now";
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "m"]].find(([size]) => length >= 2 * size) ?? [1, "s"];
  const text = `${Math.floor(length / size)}${unit}`;
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.target.matches?.("input, textarea, select, [contenteditable]")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const all = links(), at = all.indexOf(document.activeElement);
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const go = (where) => { if (where) where.click(); };
  if (key === "j") all[Math.min(at + 1, all.length - 1)]?.focus();
  else if (key === "k") all[at < 0 ? all.length - 1 : Math.max(at - 1, 0)]?.focus();
  else if (key === "n") go(pill?.hidden === false ? pill.firstElementChild : document.querySelector(".pages a:not([rel])"));
  else if (key === "[") go(document.querySelector(".pages [rel=prev]"));
  else if (key === "]") go(document.querySelector(".pages [rel=next]"));
  else if (key === "/") document.querySelector(".find input").focus();
  else return;
  event.preventDefault();
});

const hint = document.querySelector("[data-list-keys]");
if (hint) {
  hint.replaceChildren(...KEYS.flatMap(([keys, means]) => {
    const cap = document.createElement("kbd");
    cap.textContent = keys;
    return [cap, ` ${means} `];
  }));
  hint.hidden = false;
}
setInterval(look, EVERY);
setInterval(ages, 1000);
document.addEventListener("visibilitychange", look);
