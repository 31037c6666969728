import { Processes, Story, drawGantt, drawLanes, drawPlot, element, isOpen } from "./timeline.js";

const CLICKS = 50;
const $ = (id) => document.getElementById(id);

async function call(method, path, body) {
  const options = { method, cache: "no-store" };
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  if (!response.ok) throw new Error(`The server answered ${response.status} to ${method} ${path}.`);
  return response.json();
}

// What a button does, with its failure told; once at a time, unless it may be pressed again meanwhile.
function bind(target, event, action, { again = false } = {}) {
  const button = target.tagName === "FORM" ? target.querySelector("[type=submit]") : target;
  target.addEventListener(event, async (happened) => {
    happened.preventDefault();
    if (again) {
      await attempt(action);
    } else if (button.getAttribute("aria-disabled") !== "true") {
      button.setAttribute("aria-disabled", "true");
      await attempt(action);
      button.removeAttribute("aria-disabled");
    }
  });
}

async function attempt(action) {
  try {
    await action();
    $("problem").textContent = "";
  } catch (error) {
    $("problem").textContent = error instanceof TypeError ? "The server cannot be reached. Is it running?" : error.message;
  }
}

// --- what the server tells ---

const processes = new Processes();
const story = new Story();
let socket = null;
let lag = 0; // seconds by which the server's clock is ahead of ours
let driver = "local";

const now = () => Date.now() / 1000 + lag;

function connect() {
  socket?.close();
  const mine = socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/timeline`);
  mine.addEventListener("message", (message) => hear(JSON.parse(message.data)));
  mine.addEventListener("close", () => {
    if (mine !== socket) return;
    $("live").textContent = "not connected";
    $("live").classList.remove("on");
    draw();
    setTimeout(() => { if (mine === socket) connect(); }, 1000);
  });
}

function hear(event) {
  if (event.what === "hello") {
    lag = event.at - Date.now() / 1000;
    driver = event.driver;
    processes.see(event.pid, "worker");
    $("live").textContent = driver === "redis" ? "live, sessions in Redis, served by" : "live, sessions in memory, served by";
    $("live").classList.add("on");
    draw();
    $("kill").title = driver === "redis" ? "" : "A process of its own can be killed: make demo DRIVER=redis";
    if (driver !== "redis") $("lease-text").textContent += " (To kill a whole process, start the demo with DRIVER=redis.)";
    showProcesses();
    return;
  }
  if (event.what === "killed") processes.see(event.killed, "holder").dead = true;
  const known = processes.all.size;
  processes.see(event.pid, event.kind ?? "worker");
  if (processes.all.size > known || event.what === "killed") showProcesses();
  if (story.tell(event)) draw();
}

function showProcesses() {
  $("processes").replaceChildren(...[...processes.all.values()].slice(-5).map((one) => {
    const chip = document.createElement("span");
    chip.className = one.dead ? "process dead" : "process";
    const key = element("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" });
    key.append(element("circle", { class: `p${one.colour}`, cx: 5, cy: 5, r: 5 }));
    chip.append(key, `${one.kind} ${one.pid}`);
    return chip;
  }));
}

// --- drawing, as things happen ---

const STEP = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 100; // ms
const LANES = 8;
const WINDOW = 12; // seconds

let askedAt = Infinity; // for a holder, by this window; another one may have its own
let drawnAt = 0;
let due = null;

function draw() {
  due ??= setTimeout(() => { due = null; drawNow(); }, Math.max(0, Math.min(STEP, 50) - (performance.now() - drawnAt)));
}

function drawNow() {
  drawnAt = performance.now();
  drawRace();
  drawLease();
}

function drawLease() {
  const all = story.get((span) => !span.purpose.startsWith("race"));
  const spans = all.slice(-LANES);
  const open = spans.filter(isOpen);
  const last = Math.max(...spans.flatMap((span) => [span.requestedAt, span.acquiredAt, span.endedAt, span.releasedAt].filter((at) => at !== undefined)));
  const end = open.length ? now() : last;
  if (spans.length) {
    const begun = Math.min(...spans.map((span) => span.requestedAt));
    const from = Math.max(begun, end - WINDOW * 0.85);
    drawLanes($("lease").querySelector(".lanes"), spans, processes, { from, to: from + WINDOW, now: now(), rows: LANES });
    const sentence = describe(spans);
    if ($("now").textContent !== sentence) $("now").textContent = sentence;
    $("lease").querySelector(".lanes").setAttribute("aria-label", sentence);
  }
  const mine = open.find((span) => span.purpose === "hold" && span.requestedAt > askedAt);
  const holds = mine !== undefined && mine.acquiredAt !== undefined && mine.endedAt === undefined;
  $("hold").disabled = mine !== undefined || socket?.readyState !== WebSocket.OPEN;
  for (const id of ["finish", "crash"]) $(id).disabled = !holds;
  $("kill").disabled = !holds || driver !== "redis";
  if (open.length) setTimeout(draw, STEP);
}

function describe(spans) {
  const holder = spans.findLast((span) => span.acquiredAt !== undefined && span.endedAt === undefined);
  const dead = spans.findLast((span) => span.end === "killed" && span.releasedAt === undefined);
  const waiting = spans.filter((span) => span.acquiredAt === undefined && span.endedAt === undefined).length;
  const queue = waiting === 0 ? "nobody waits" : waiting === 1 ? "one waits" : `${waiting} wait`;
  if (holder) return `A ${holder.purpose || "request"} in process ${holder.pid} holds the lock; ${queue}.`;
  if (dead) return `Process ${dead.pid} was killed with the lock in its hands; ${queue} until its lease runs out.`;
  return waiting ? `Nobody holds the lock; ${queue}.` : "The lock is free.";
}

// --- fifty clicks ---

const race = { naive: [], locked: [], since: 0 };

function drawRace() {
  const spans = story.get((span) => span.purpose === "race/locked" && span.requestedAt >= race.since)
    .sort((one, other) => (one.acquiredAt ?? Infinity) - (other.acquiredAt ?? Infinity));
  if (spans.length) {
    drawGantt($("locked").querySelector("svg"), spans.map((span) => ({
      pid: span.pid, from: span.requestedAt, hold: span.acquiredAt ?? now(), to: span.endedAt ?? now(),
    })), processes);
  }
  if (race.naive.length) {
    // Of two that were answered the same number, only one has counted.
    const seen = new Set();
    const rows = [...race.naive].sort((one, other) => one.at - other.at).map((click) => {
      const lost = seen.has(click.count);
      seen.add(click.count);
      return { pid: click.pid, from: click.begun, hold: click.begun, to: click.at, lost };
    });
    drawGantt($("naive").querySelector("svg"), rows, processes);
  }
  const curve = (clicks) => [...clicks].sort((one, other) => one.at - other.at).map((click) => click.count);
  drawPlot($("lost").querySelector("svg"), { naive: curve(race.naive), locked: curve(race.locked) }, CLICKS);
}

async function runWay(name) {
  const way = $(name);
  way.querySelector(".of").textContent = "sending …";
  await Promise.all(Array.from({ length: CLICKS }, async () => {
    race[name].push(await call("POST", `/race/${name}`));
    way.querySelector(".of").textContent = `${race[name].length} answered`;
    draw();
  }));
  const total = (await call("GET", "/race"))[name];
  const lost = CLICKS - total;
  way.classList.add(lost === 0 ? "good" : "bad");
  way.querySelector(".count").textContent = total;
  way.querySelector(".of").textContent = lost === 0 ? `of ${CLICKS} counted` : `of ${CLICKS} counted, ${lost} lost`;
  way.querySelector("svg").setAttribute("aria-label", `${total} of ${CLICKS} clicks counted, ${lost} lost`);
  return total;
}

async function runRace() {
  $("verdict").textContent = "";
  Object.assign(race, { naive: [], locked: [], since: now() - 0.05 });
  for (const name of ["naive", "locked"]) {
    $(name).className = "way";
    $(name).querySelector(".count").textContent = "–";
    $(name).querySelector("svg").replaceChildren();
  }
  await call("POST", "/race");
  const naive = await runWay("naive");
  const locked = await runWay("locked");
  $("verdict").textContent = `${CLICKS} clicks: naive counted ${naive}, locked counted ${locked}.`;
  $("lost").querySelector("svg").setAttribute("aria-label", `of ${CLICKS} clicks answered, ${CLICKS - naive} were lost without the lock, ${CLICKS - locked} with it`);
  await refresh();
  draw();
}

// --- what the session holds ---

let shownTag = null;

function tagElement(tag, className) {
  const made = document.createElement("span");
  made.className = `tag ${className}`;
  if (tag === null) {
    made.classList.add("none");
    made.textContent = "none";
    return made;
  }
  const swatch = document.createElement("i");
  swatch.style.backgroundColor = `hsl(${parseInt(tag.slice(0, 4), 16) % 360} 62% 52%)`;
  made.append(swatch, tag);
  return made;
}

function show(state) {
  $("visits").textContent = state.visits;
  $("note").textContent = state.note === null ? "Nothing yet." : `“${state.note}”`;
  if (state.tag !== shownTag || state.tag === null) {
    const parts = [tagElement(state.tag, "now")];
    if (shownTag !== null && state.tag !== shownTag) parts.push(" was ", tagElement(shownTag, "was"));
    $("id").replaceChildren(...parts);
    if (state.tag !== shownTag) connect(); // the socket was opened with the id of that time
    shownTag = state.tag;
  }
}

const refresh = async () => show(await call("GET", "/state"));

async function visit() {
  const { visits } = await call("GET", "/visits");
  $("visits").textContent = visits;
  await refresh();
}

bind($("run"), "click", runRace);
bind($("click"), "click", () => call("POST", "/click"), { again: true });
for (const id of ["hold", "finish", "crash", "kill"]) {
  bind($(id), "click", async () => {
    if (id === "hold") askedAt = now() - 0.2;
    socket.send(id);
  }, { again: true });
}
bind($("visit"), "click", visit);
bind($("note-form"), "submit", async () => {
  show(await call("PUT", "/note", { note: $("note-text").value }));
  $("note-text").value = "";
});
bind($("forget"), "click", async () => show(await call("DELETE", "/note")));
bind($("new-id"), "click", async () => show(await call("POST", "/new-id")));
bind($("log-out"), "click", async () => show(await call("POST", "/log-out")));

// What another window has done meanwhile.
document.addEventListener("visibilitychange", () => { if (!document.hidden) attempt(refresh); });
new ResizeObserver(draw).observe(document.querySelector("main"));

attempt(visit);
