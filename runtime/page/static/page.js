// The live page. Names and texts come from outside, so they are put in as text alone, never as markup.
"use strict";

const SHOWN = 600; // results in the chart
const TILES = 36; // in the strip
const EVENTS = 8;
const CONNECTIONS = 4; // that stay open; a browser has six to a server, for all its windows
const HEARD_MS = 1000; // how often windows of one browser hear of each other
const POST_MS = 10000;
const STILL_MS = 400;
const COLOURS = { good: "good", unclear: "unclear", reject: "bad", anomalous: "bad", missed: "fault", fault: "fault" };
const FIELDS = ["number", "time", "event", "part", "partId", "verdict", "score", "threshold", "recipe", "text"];

const wall = document.getElementById("wall");
const link = document.getElementById("link");
const panels = new Map();
const me = Math.random();
const others = new Map(); // windows of this browser that somebody sees → when they were heard
const channel = new BroadcastChannel("line");
let source = null;

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function put(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function clock(time) {
  const at = new Date(time);
  const isToday = at.toDateString() === new Date().toDateString();
  const day = { hourCycle: "h23" }; // "10:23:54 PM" is cut in the strip
  return isToday ? at.toLocaleTimeString([], day) : at.toLocaleString([], day);
}

const digits = (value) => (value === null ? "–" : value.toFixed(3));
const query = (name) => `camera=${encodeURIComponent(name)}`;

class Panel {
  constructor(name) {
    this.name = name;
    this.rows = [];
    this.events = [];
    this.isPaused = false;
    this.mode = "";
    this.timer = 0;
    this.state = element("span", { className: "chip", role: "status" });
    this.pace = element("span", { className: "soft" });
    this.image = element("img", { alt: `${name}: the newest frame with its overlay` });
    this.pause = this.button("Pause", () => this.setPaused(!this.isPaused));
    this.pause.title = "Hold the picture; the line goes on";
    this.held = element("span", { className: "chip unclear", role: "status", hidden: true });
    this.trigger = this.button("Trigger", () => this.post("/trigger", {}, (told) => `part ${told.part} was begun`));
    this.trigger.onkeydown = (event) => { if (event.repeat) event.preventDefault(); }; // one part for each press
    this.recipe = element("select", { "aria-label": "Recipe" });
    this.change = this.button("Change recipe", () =>
      this.post("/recipe", { recipe: this.recipe.value }, (told) => `recipe ${told.recipe} is being opened`));
    this.recipes = element("span", { className: "pair" }, this.recipe, this.change);
    this.count = element("select", { "aria-label": "How many events" });
    for (const count of [100, 1000, 10000]) this.count.append(element("option", { value: count }, String(count)));
    this.count.value = "1000";
    this.count.onchange = () => this.setTable();
    this.table = element("a", { className: "button", download: "" }, "Last events as CSV");
    this.setTable();
    this.said = element("p", { className: "said soft", role: "status" });
    this.verdict = element("strong", { className: "verdict" }, "–");
    this.detail = element("span", { className: "soft" });
    this.strip = element("ol", { className: "strip", tabIndex: 0, "aria-label": "The last results, newest first" });
    this.chart = element("canvas", { role: "img" });
    this.numbers = element("dl", { className: "numbers" });
    this.troubles = element("ul", { className: "troubles", role: "alert" });
    this.outputs = element("ul", { className: "outputs" });
    this.log = element("ul", { className: "log" });
    this.root = element("article", { className: "card camera" },
      element("header", {}, element("h2", {}, name), this.state, this.held, this.pace),
      element("div", { className: "left" },
        element("div", { className: "picture" }, this.image),
        element("div", { className: "controls" }, this.pause, this.trigger, this.recipes,
          element("span", { className: "pair" }, this.count, this.table)),
        this.said, this.troubles),
      element("div", { className: "right" },
        element("p", { className: "newest" }, this.verdict, this.detail), this.strip, this.chart, this.numbers,
        element("section", {}, element("h3", {}, "Outputs"), this.outputs),
        element("section", {}, element("h3", {}, "Events"), this.log)));
    wall.append(this.root);
  }

  button(text, action) {
    return element("button", { type: "button", onclick: action }, text);
  }

  setTable() {
    this.table.href = `/events.csv?${query(this.name)}&last=${this.count.value}`;
  }

  async post(path, asked, told) {
    try {
      const answer = await fetch(path, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ camera: this.name, ...asked }),
        signal: AbortSignal.timeout(POST_MS),
      });
      const isJson = (answer.headers.get("content-type") || "").startsWith("application/json");
      const body = isJson ? await answer.json() : { error: await answer.text() };
      this.say(answer.ok ? told(body) : body.error, !answer.ok);
    } catch {
      this.say("the line does not answer; whether it has heard is not known", true);
    }
  }

  say(text, isBad) {
    this.said.textContent = text;
    this.said.className = isBad ? "said bad" : "said soft";
  }

  setPaused(isPaused) {
    this.isPaused = isPaused;
    this.pause.setAttribute("aria-pressed", String(isPaused));
    this.held.hidden = !isPaused;
    put(this.held, `picture of ${clock(new Date())}`);
    this.show("");
  }

  // How the picture comes: "stream", "stills", or "" for one that stands.
  show(mode) {
    if (this.mode === "stream") this.hold();
    this.mode = mode;
    clearTimeout(this.timer);
    if (mode === "stream") this.image.src = `/stream?${query(this.name)}&t=${Date.now()}`;
    else if (mode === "stills") this.still();
  }

  // Ends a stream at once, whose connection the next picture may need, and keeps its picture.
  hold() {
    const { naturalWidth: width, naturalHeight: height } = this.image;
    const canvas = element("canvas", { width, height });
    if (width) canvas.getContext("2d").drawImage(this.image, 0, 0);
    if (width) this.image.src = canvas.toDataURL("image/jpeg");
    else this.image.removeAttribute("src");
  }

  still() {
    const again = () => {
      if (this.mode === "stills") this.timer = setTimeout(() => this.still(), STILL_MS);
    };
    const next = new Image();
    next.onload = () => {
      if (this.mode === "stills") this.image.src = next.src;
      again();
    };
    next.onerror = again;
    next.src = `/picture?${query(this.name)}&t=${Date.now()}`;
  }

  update(told) {
    const isWell = told.health === "ok";
    put(this.state, isWell ? "judging" : told.health.replaceAll("-", " "));
    this.state.className = isWell ? "chip good" : "chip bad";
    put(this.pace, `${told.fps.toFixed(1)} fps`);
    this.root.classList.remove("stale");
    for (const values of told.rows) {
      const row = Object.fromEntries(FIELDS.map((field, place) => [field, values[place]]));
      (row.verdict === null ? this.events : this.rows).push(row);
    }
    this.rows = this.rows.slice(-SHOWN);
    this.events = this.events.slice(-EVENTS);
    this.trigger.hidden = !told.can_trigger;
    this.setRecipes(told);
    this.setNewest(told);
    if (told.rows.length) this.setStrip();
    this.setNumbers(told);
    this.list(this.troubles, Object.entries(told.troubles).map(([kind, text]) => [kind, text]));
    this.list(this.outputs, told.outputs.map(([name, state, drops, failures]) =>
      [name, [state, drops && `${drops} not written, too slow`, failures && `${failures} failed`].filter(Boolean).join(", ")]));
    this.list(this.log, this.events.map((event) => [clock(event.time), event.text]).reverse());
    this.unclearFrom = told.unclear_from;
    this.draw();
  }

  // What is shown is what was so before the connection was lost.
  lose() {
    put(this.state, "not known");
    this.state.className = "chip bad";
    put(this.pace, "");
    this.root.classList.add("stale");
  }

  setRecipes(told) {
    this.recipes.hidden = !told.recipes.length;
    if (this.recipe.dataset.names === told.recipes.join("\n")) {
      if (this.inUse !== told.recipe) this.recipe.value = told.recipe;
    } else {
      this.recipe.dataset.names = told.recipes.join("\n");
      this.recipe.replaceChildren(...told.recipes.map((name) => element("option", { value: name }, name)));
      this.recipe.value = told.recipe;
    }
    this.inUse = told.recipe;
  }

  setNewest(told) {
    const row = this.rows.at(-1);
    if (!row) return;
    put(this.verdict, row.verdict);
    this.verdict.className = `verdict ${COLOURS[row.verdict] || "fault"}`;
    const name = told.has_parts ? `part ${row.part}${row.partId === null ? "" : ` (${row.partId})`}` : `frame ${row.part}`;
    const recipe = row.recipe === null ? "" : `, recipe ${row.recipe}`;
    put(this.detail, `${name}, score ${digits(row.score)} of ${digits(row.threshold)}, ${clock(row.time)}${recipe}`);
  }

  setStrip() {
    const tiles = this.rows.slice(-TILES).reverse().map((row) => {
      const name = row.partId === null ? `#${row.part}` : row.partId;
      const tile = element("li", { className: COLOURS[row.verdict] || "fault", title: `${name}, ${clock(row.time)}` },
        element("b", {}, row.verdict), element("span", {}, digits(row.score)), element("small", {}, name),
        element("small", {}, clock(row.time)));
      return tile;
    });
    this.strip.replaceChildren(...tiles);
  }

  setNumbers(told) {
    const all = Object.values(told.counts).reduce((sum, count) => sum + count, 0);
    const share = (count) => (all ? `${count} (${((100 * count) / all).toFixed(1)} %)` : "0");
    const pair = ([half, most]) => `${half.toFixed(1)} / ${most.toFixed(1)} ms`;
    const numbers = [
      [told.has_parts ? "Parts" : "Frames", String(all)],
      ...Object.entries(told.counts).map(([verdict, count]) => [verdict, share(count), COLOURS[verdict]]),
      ...(told.latency_ms.length ? [["Camera to verdict, p50 / p95", pair(told.latency_ms)]] : []),
      ...(told.part_ms.length ? [["Part, p50 / p95", pair(told.part_ms)]] : []),
      told.troubles.drift ? ["Drift", "scores have moved", "unclear"] : ["Drift", told.watches_drift ? "none found" : "not watched"],
      ["Since", clock(told.began)],
    ];
    if (this.numbers.childElementCount !== numbers.length) {
      this.numbers.replaceChildren(...numbers.map(() => element("div", {}, element("dt"), element("dd"))));
    }
    numbers.forEach(([name, value, colour], place) => {
      const [term, detail] = this.numbers.children[place].children;
      put(term, name);
      put(detail, value);
      detail.className = colour || "";
    });
  }

  list(target, pairs) {
    const text = JSON.stringify(pairs);
    if (target.dataset.shown === text) return;
    if (target.parentElement.tagName === "SECTION") target.parentElement.hidden = !pairs.length;
    target.dataset.shown = text;
    target.replaceChildren(...pairs.map(([name, value]) => element("li", {}, element("b", {}, name), ` ${value}`)));
  }

  draw() {
    const scored = this.rows.filter((row) => row.score !== null);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`);
    const scale = window.devicePixelRatio || 1;
    const [width, height] = [this.chart.clientWidth, this.chart.clientHeight];
    if (!width) return;
    if (this.chart.width !== Math.round(width * scale)) this.chart.width = Math.round(width * scale);
    if (this.chart.height !== Math.round(height * scale)) this.chart.height = Math.round(height * scale);
    const context = this.chart.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    const newest = scored.at(-1);
    const told = newest ? `The last ${scored.length} scores, the newest ${digits(newest.score)}, the threshold ${digits(newest.threshold)}` : "No scores yet";
    if (this.chart.getAttribute("aria-label") !== told) this.chart.setAttribute("aria-label", told);
    if (!newest) return;
    const values = scored.flatMap((row) => [row.score, row.threshold]).filter((value) => value !== null);
    if (this.unclearFrom !== null) values.push(this.unclearFrom);
    const span = Math.max(...values) - Math.min(...values) || Math.abs(newest.score) || 1;
    const low = Math.min(...values) - 0.08 * span;
    const high = Math.max(...values) + 0.08 * span;
    const [left, right, top, bottom] = [40, 6, 8, 6];
    const x = (place) => left + ((place + 0.5) / Math.max(60, scored.length)) * (width - left - right);
    const y = (value) => height - bottom - ((value - low) / (high - low)) * (height - top - bottom);
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.fillStyle = colour("soft");
    const labels = [newest.threshold, this.unclearFrom, Math.min(...values), Math.max(...values)];
    const drawn = [];
    for (const value of labels) {
      if (value === null || drawn.some((other) => Math.abs(other - y(value)) < 13)) continue;
      drawn.push(y(value));
      context.fillText(value.toFixed(2), left - 6, y(value));
    }
    context.lineWidth = 1.5;
    context.strokeStyle = colour("bad");
    context.beginPath(); // of each result its own threshold, since recipes have theirs
    scored.forEach((row, place) => context.lineTo(x(place), y(row.threshold ?? newest.threshold)));
    context.lineTo(width - right, y(newest.threshold));
    context.stroke();
    if (this.unclearFrom !== null) {
      context.strokeStyle = colour("unclear");
      context.setLineDash([5, 4]);
      context.beginPath();
      context.moveTo(left, y(this.unclearFrom));
      context.lineTo(width - right, y(this.unclearFrom));
      context.stroke();
      context.setLineDash([]);
    }
    const radius = scored.length > 200 ? 1.6 : 2.6;
    scored.forEach((row, place) => {
      context.fillStyle = colour(COLOURS[row.verdict] || "fault");
      context.beginPath();
      context.arc(x(place), y(row.score), radius, 0, 7);
      context.fill();
    });
  }
}

function showPictures() {
  for (const [other, heard] of others) if (Date.now() - heard > 3 * HEARD_MS) others.delete(other);
  // Beyond that pictures come one by one, or a click would wait for a connection for ever.
  const isMuch = (1 + others.size) * (1 + panels.size) > CONNECTIONS;
  const mode = document.hidden ? "" : isMuch ? "stills" : "stream";
  for (const panel of panels.values()) if (!panel.isPaused && panel.mode !== mode) panel.show(mode);
}

function receive(message) {
  const told = JSON.parse(message.data);
  for (const each of told) {
    if (!panels.has(each.name)) panels.set(each.name, new Panel(each.name));
    panels.get(each.name).update(each);
  }
  wall.classList.toggle("single", panels.size === 1);
  put(link, told.length ? "live" : "starting");
  link.className = told.length ? "chip good" : "chip unclear";
  showPictures();
}

// A page that nobody sees lets go of its connections.
function connect() {
  if (source) source.close();
  source = null;
  if (document.hidden) {
    showPictures();
    return;
  }
  source = new EventSource("/live");
  source.onopen = () => {
    for (const panel of panels.values()) {
      panel.rows = [];
      panel.events = [];
      panel.mode = "";
    }
  };
  source.onmessage = receive;
  source.onerror = () => {
    put(link, "no connection");
    link.className = "chip bad";
    panels.forEach((panel) => panel.lose());
    const failed = source;
    if (failed && failed.readyState === EventSource.CLOSED) setTimeout(() => failed === source && again(), 2000);
  };
}

// Where the cookie counts no more, the token is asked for; else the page would wait for ever.
async function again() {
  const answer = await fetch("/state", { method: "HEAD" }).catch(() => null);
  if (answer && answer.status === 401) location.reload();
  else connect();
}

channel.onmessage = ({ data }) => others.set(data, Date.now());
setInterval(() => { if (!document.hidden) channel.postMessage(me); }, HEARD_MS);
channel.postMessage(me);

document.addEventListener("visibilitychange", connect);
window.addEventListener("resize", () => panels.forEach((panel) => panel.draw()));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => panels.forEach((panel) => panel.draw()));
connect();
