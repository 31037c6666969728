// What the server tells of locks, as spans in time; and spans as SVG.

const NAMESPACE = "http://www.w3.org/2000/svg";
const COLOURS = 4;

export function element(name, attributes = {}, text) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Every process has a colour, in the order in which we hear of them; a new one gets that of the one dead for longest.
export class Processes {
  constructor() { this.all = new Map(); }

  see(pid, kind) {
    if (!this.all.has(pid)) {
      const taken = new Set([...this.all.values()].filter((one) => !one.dead).map((one) => one.colour));
      const free = [...Array(COLOURS).keys()].find((colour) => !taken.has(colour)) ?? this.all.size % COLOURS;
      this.all.set(pid, { pid, kind, colour: free, dead: false });
    }
    return this.all.get(pid);
  }
}

// A span is one lock: asked for, had, ended. `end` is one of committed, rolled back, lost, killed, gave up.
export class Story {
  constructor() { this.spans = new Map(); }

  // Returns whether there is something new to draw.
  tell(event) {
    if (event.what === "killed") {
      for (const span of this.spans.values()) {
        if (span.pid === event.killed && span.endedAt === undefined) Object.assign(span, { end: "killed", endedAt: event.at });
      }
      return true;
    }
    const key = `${event.pid}:${event.lock}`;
    if (event.what === "requested") {
      const { pid, session, purpose } = event;
      this.spans.set(key, { pid, session, purpose, requestedAt: event.at });
      if (this.spans.size > 400) this.spans.delete(this.spans.keys().next().value);
      return true;
    }
    const span = this.spans.get(key);
    if (span === undefined) return false; // it began before we came
    switch (event.what) {
      case "acquired":
        span.acquiredAt = event.at;
        for (const other of this.spans.values()) { // somebody else has the lock now, so no lease runs any more
          if (other.session === span.session && other.end === "killed") other.releasedAt ??= event.at;
        }
        break;
      case "abandoned": Object.assign(span, { end: "gave up", endedAt: event.at, reason: event.reason }); break;
      case "lost": Object.assign(span, { end: "lost", endedAt: event.at, reason: event.reason }); break;
      case "committed": Object.assign(span, { end: "committed", endedAt: event.at }); break;
      case "rolled back":
        if (span.end !== "lost") Object.assign(span, { end: "rolled back", endedAt: event.at, reason: event.reason });
        break;
      case "released": span.releasedAt = event.at; break;
    }
    return true;
  }

  get(filter) { return [...this.spans.values()].filter(filter); }
}

export function isOpen(span) {
  return span.endedAt === undefined || ((span.end === "killed" || span.end === "lost") && span.releasedAt === undefined);
}

// --- drawing ---

export function begin(svg) {
  const { width, height } = svg.getBoundingClientRect();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  return { parts: [], width, height };
}

// Lines at round times, with their labels under them.
export function drawAxis(canvas, { left, from, to, scale, every }) {
  const bottom = canvas.height - 18;
  for (let time = from; time <= to + 1e-6; time += every) {
    const x = scale(time);
    canvas.parts.push(element("path", { class: "grid", d: `M${x} 0V${bottom}` }));
    const seconds = Math.round((time - from) * 1000) / 1000;
    const anchor = x > canvas.width - 24 ? "end" : x <= left + 1 ? "start" : "middle";
    canvas.parts.push(element("text", { x, y: canvas.height - 4, "text-anchor": anchor }, `${seconds} s`));
  }
}

export function niceStep(range, lines) {
  const steps = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20];
  return steps.find((step) => range / step <= lines) ?? 60;
}

// Many spans, one thin row each: the whole is the picture.
export function drawGantt(svg, rows, processes) {
  const canvas = begin(svg);
  const begun = Math.min(...rows.map((row) => row.from));
  const ended = Math.max(...rows.map((row) => row.to));
  const range = Math.max(ended - begun, 0.05);
  const scale = (time) => ((time - begun) / range) * (canvas.width - 2) + 1;
  drawAxis(canvas, { left: 0, from: begun, to: ended, scale, every: niceStep(range, 5) });
  const pitch = (canvas.height - 24) / Math.max(rows.length, 50);
  rows.forEach((row, number) => {
    const y = number * pitch;
    if (row.hold > row.from) {
      canvas.parts.push(element("path", { class: "wait", d: `M${scale(row.from)} ${y + pitch / 2}H${scale(row.hold)}` }));
    }
    const colour = row.lost ? "gone" : `p${processes.see(row.pid, "worker").colour}`;
    canvas.parts.push(element("rect", {
      class: `hold ${colour}`, x: scale(row.hold), y: y + 0.4, rx: 1,
      width: Math.max(scale(row.to) - scale(row.hold), 2), height: Math.max(pitch - 0.8, 1.5),
    }));
  });
  svg.replaceChildren(...canvas.parts);
}

const MARKS = {
  "committed": ["kept", "M-4 .5l3 3 5-7"],
  "rolled back": ["back", "M4 4V-.5H-3.5M-1-3.5l-3 3 3 3"],
  "lost": ["bad", "M-3.5-3.5l7 7m0-7l-7 7"],
  "killed": ["bad", "M-3.5-3.5l7 7m0-7l-7 7"],
  "gave up": ["back", "M-4 0h8"],
};

const WORDS = { hold_limit: "held too long", lease_expired: "lease expired", timeout: "gave up waiting" };

function wordFor(span) {
  if (span.end === "killed") return span.releasedAt === undefined ? "killed; its lease runs out" : "killed";
  if (span.end === "lost") return `lost: ${WORDS[span.reason] ?? span.reason}`;
  if (span.end === "gave up") return WORDS[span.reason] ?? span.reason;
  return span.end;
}

// Few spans, one labelled lane each, the newest at the bottom.
export function drawLanes(svg, spans, processes, { from, to, now, rows }) {
  const canvas = begin(svg);
  const left = canvas.width < 500 ? 62 : 172;
  const scale = (time) => left + ((time - from) / (to - from)) * (canvas.width - left - 2);
  const clip = (time) => Math.max(scale(time), left);
  drawAxis(canvas, { left, from, to, scale, every: niceStep(to - from, canvas.width < 500 ? 4 : 8) });
  const pitch = (canvas.height - 24) / rows;
  spans.forEach((span, number) => {
    const middle = (number + 0.5) * pitch;
    const process = processes.see(span.pid, "worker");
    const title = element("title", {}, `${span.purpose || "request"} in ${process.kind} ${span.pid}: ${span.end ?? (span.acquiredAt ? "holds the lock" : "waits")}`);
    const lane = element("g");
    lane.append(title);
    lane.append(element("path", { class: "grid", d: `M0 ${(number + 1) * pitch}H${canvas.width}` }));
    lane.append(element("circle", { class: `p${process.colour}`, cx: 6, cy: middle, r: 5 }));
    lane.append(element("text", { class: "strong", x: 17, y: middle + 4 }, span.purpose || "request"));
    if (left > 100) lane.append(element("text", { x: left - 8, y: middle + 4, "text-anchor": "end" }, `${process.kind} ${span.pid}`));
    const waitEnd = span.acquiredAt ?? span.endedAt ?? now;
    if (scale(waitEnd) > left) lane.append(element("path", { class: "wait", d: `M${clip(span.requestedAt)} ${middle}H${scale(waitEnd)}` }));
    let end = scale(span.endedAt ?? now);
    if (span.acquiredAt !== undefined && end > left) {
      const x = clip(span.acquiredAt);
      lane.append(element("rect", { class: `hold p${process.colour}`, x, y: middle - 8, rx: 2.5, height: 16, width: Math.max(end - x, 2) }));
    }
    if (span.end === "killed" || span.end === "lost") {
      const until = scale(span.releasedAt ?? now);
      if (until > Math.max(end, left)) {
        lane.append(element("rect", { class: "lease", x: Math.max(end, left), y: middle - 8, height: 16, width: until - Math.max(end, left) }));
        end = until;
      }
    }
    if (span.endedAt !== undefined && end > left) {
      const [kind, shape] = MARKS[span.end];
      const x = Math.min(end + 10, canvas.width - 8);
      lane.append(element("path", { class: `mark ${kind}`, d: shape, transform: `translate(${x} ${middle})` }));
      const word = [wordFor(span), span.end].find((text) => x + 12 + text.length * 6.6 < canvas.width);
      if (word) lane.append(element("text", { class: kind === "bad" ? "bad" : "", x: x + 9, y: middle + 4 }, word));
    }
    canvas.parts.push(lane);
  });
  svg.replaceChildren(...canvas.parts);
}

// What is stored after so many answers: the diagonal, if every answer was true.
export function drawPlot(svg, curves, total) {
  const canvas = begin(svg);
  const left = 30, bottom = canvas.height - 34, top = 8, right = canvas.width - 8;
  const x = (answers) => left + (answers / total) * (right - left);
  const y = (stored) => bottom - (stored / total) * (bottom - top);
  for (const value of [0, total / 2, total]) {
    canvas.parts.push(element("path", { class: "grid", d: `M${left} ${y(value)}H${right}` }));
    canvas.parts.push(element("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, value));
    canvas.parts.push(element("text", { x: x(value), y: bottom + 15, "text-anchor": value === total ? "end" : "middle" }, value));
  }
  canvas.parts.push(element("text", { x: (left + right) / 2, y: canvas.height - 3, "text-anchor": "middle" }, "clicks answered"));
  canvas.parts.push(element("path", { class: "ideal", d: `M${x(0)} ${y(0)}L${x(total)} ${y(total)}` }));
  const { naive, locked } = curves;
  if (naive.length) {
    const points = naive.map((stored, index) => `L${x(index + 1)} ${y(stored)}`).join("");
    canvas.parts.push(element("path", { class: "gap", d: `M${x(0)} ${y(0)}${points}L${x(naive.length)} ${y(naive.length)}Z` }));
    canvas.parts.push(element("path", { class: "curve naive", d: `M${x(0)} ${y(0)}${points}` }));
  }
  if (locked.length) {
    const points = locked.map((stored, index) => `L${x(index + 1)} ${y(stored)}`).join("");
    canvas.parts.push(element("path", { class: "curve locked", d: `M${x(0)} ${y(0)}${points}` }));
    canvas.parts.push(element("text", { class: "strong", x: x(total * 0.5), y: y(total * 0.62), "text-anchor": "end" }, "locked"));
  }
  if (naive.length === total) {
    const last = naive[total - 1];
    canvas.parts.push(element("text", { class: "bad", x: x(total * 0.97), y: y((total + last) / 2) + 4, "text-anchor": "end" }, `${total - last} lost`));
    canvas.parts.push(element("text", { class: "strong", x: x(total * 0.55), y: y(last * 0.55) - 12, "text-anchor": "end" }, "naive"));
  }
  svg.replaceChildren(...canvas.parts);
}
