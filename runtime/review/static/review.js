"use strict";
// One picture after another: the next ones are loaded before they are asked for, and what is decided is sent while the
// next one is looked at. Where that fails, one is led back to the picture, and nothing sent after it counts.

const $ = (id) => document.getElementById(id);
const session = crypto.getRandomValues(new Uint32Array(4)).join("-");
const AHEAD = 4;
const MARK = "rgb(255 43 214)";
const DIGITS = "123456789";
const CALLS = { good: "good", defect: "defect", skip: "skipped" };
const CLASSES = { good: "good", unclear: "unclear", reject: "bad", missed: "fault", fault: "fault" };

const views = []; // of all pictures that this page had, in the order that they were shown
let at = 0;
let tool = null;
let taking = false;
let exhausted = false;
let kinds = [];
let counts = null;
const outbox = []; // decisions that are not sent yet
let sending = false;
let warned = null; // of a mask that a call would drop

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" },
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw Object.assign(new Error("the server does not answer; start stlm review again, and load this page again"), { status: 0 });
  }
  const text = await answer.text();
  let data = {};
  try { data = JSON.parse(text); } catch { /* of the guard, which answers in words */ }
  if (!answer.ok) {
    throw Object.assign(new Error(data.error || text || `the server answers ${answer.status}`), { status: answer.status, data });
  }
  if (data.counts) { counts = data.counts; kinds = data.kinds; showCounts(); }
  return data;
}

function say(text) {
  $("notice").hidden = !text;
  $("notice").textContent = text || "";
}

// --- pictures

function picture(item, path, name) {
  const image = new Image();
  image.className = name;
  image.alt = "";
  image.draggable = false;
  image.src = `${path}/${item.number}?of=${item.sha256.slice(0, 12)}`;
  image.decode().catch(() => { /* what is wrong with it stands in the notice */ });
  return image;
}

function makeView(item) {
  const view = { item, sent: item.decision, canvas: null, dirty: false, box: document.createElement("div") };
  view.box.className = "view";
  if (item.preview_size) {
    const shown = picture(item, "/picture", "picture");
    const [rows, columns] = item.preview_size;
    for (const [name, value] of [["ratio", columns / rows], ["columns", columns], ["all-columns", item.size[1]]]) {
      view.box.style.setProperty(`--${name}`, value);
    }
    view.picture = shown;
    view.box.append(shown);
    if (item.map_peak !== null && item.threshold !== null) view.box.append(picture(item, "/heat", "over heat"));
    const reached = item.threshold !== null && item.map_peak >= item.threshold;
    view.level = reached ? item.threshold : (item.map_peak || 0) / 2;
    view.box.addEventListener("pointerdown", (event) => startStroke(view, event));
    view.box.addEventListener("pointermove", (event) => moveStroke(view, event));
    for (const end of ["pointerup", "pointercancel"]) view.box.addEventListener(end, () => { view.last = null; });
    if (item.decision && item.decision.has_mask) loadMask(view, `/mask/${item.number}?of=${item.decision.seq}`);
  } else {
    const words = document.createElement("p");
    words.className = "empty";
    words.textContent = item.fault || "This picture cannot be shown.";
    view.box.append(words);
  }
  return view;
}

async function fill() {
  if (taking || exhausted) return;
  const missing = AHEAD - (views.length - at);
  if (missing <= 0) return;
  taking = true;
  try {
    const { items } = await ask("/api/take", { session, count: missing });
    const wasEmpty = at >= views.length;
    views.push(...items.map(makeView));
    exhausted = items.length === 0;
    if (exhausted) setTimeout(() => { exhausted = false; fill(); }, 5000); // a line may go on keeping
    if (wasEmpty) show();
  } catch (error) {
    say(error.message);
  } finally {
    taking = false;
  }
}

function show() {
  const view = views[at];
  const stage = $("stage");
  $("kinds").hidden = true;
  warned = null;
  if (!view) {
    const words = document.createElement("p");
    words.className = "empty";
    words.textContent = counts === null ? "Loading…"
      : counts.open ? "All other pictures are with other reviewers; those that they leave come here."
        : "All pictures are decided. New ones that the line keeps appear here.";
    stage.replaceChildren(words);
  } else {
    stage.replaceChildren(view.box);
    view.box.classList.toggle("drawing", tool !== null);
    document.body.dataset.number = view.item.number;
    for (const old of views.slice(0, Math.max(0, at - 30))) old.box.replaceChildren(); // memory
  }
  zoom($("zoom").getAttribute("aria-pressed") === "true");
  showFacts(view);
  fill();
}

function showFacts(view) {
  const item = view && view.item;
  for (const id of ["good", "defect", "skip"]) $(id).disabled = !view || (id !== "skip" && !item.preview_size);
  for (const id of ["map", "zoom", "region", "brush", "eraser", "clear"]) $(id).disabled = !view || !item.preview_size;
  $("region").disabled = $("level").disabled = $("map").disabled = !view || item.map_peak === null || !item.preview_size;
  $("back").disabled = at === 0;
  $("on").disabled = at >= views.length;
  $("verdict").replaceChildren();
  $("verdict").className = "verdict";
  $("scale").replaceChildren();
  $("about").textContent = "";
  $("decided").hidden = true;
  if (!view) { say(""); return; }
  const small = document.createElement("small");
  $("verdict").classList.add(CLASSES[item.verdict] || "soft");
  $("verdict").append((item.verdict || "no verdict").toUpperCase(), small);
  if (item.score !== null) {
    small.textContent = `score ${item.score.toFixed(3)}`;
    if (item.threshold !== null) small.textContent += `, threshold ${item.threshold.toFixed(3)}`;
    drawScale(item);
  }
  $("about").textContent = [item.name, item.size && `${item.size[1]} × ${item.size[0]}`, item.time && item.time.slice(0, 19).replace("T", " "), item.where].filter(Boolean).join(" · ");
  if (view.sent) {
    const what = view.sent.kind ? `defect (${view.sent.kind}${view.sent.has_mask ? ", with mask" : ""})` : CALLS[view.sent.call];
    $("decided").textContent = `Decided: ${what}, by ${view.sent.reviewer}. Deciding again replaces that.`;
    $("decided").hidden = false;
  }
  $("level").value = view.level || 0;
  $("level-value").textContent = Number($("level").value).toFixed(2);
  say(view.problem || item.fault);
}

function showCounts() {
  const done = counts.good + counts.defect + counts.skip;
  const all = done + counts.open;
  $("counts").textContent = `${done} of ${all} · ${counts.disagree} disagree`;
  $("counts").title = `${counts.good} good, ${counts.defect} defects, ${counts.skip} skipped`;
  $("bar").style.width = `${all ? (100 * done) / all : 0}%`;
  $("progress").setAttribute("aria-label", `${done} of ${all} decided`);
}

function step(by) {
  const to = at + by;
  if (to < 0 || to > views.length) return;
  at = to;
  show();
}

// --- deciding

async function decide(call, kind = "") {
  const view = views[at];
  if (!view || (call !== "skip" && !view.item.preview_size)) return;
  if (view.dirty && call !== "defect" && warned !== call) {
    warned = call;
    say("There is a mask on this picture, which only a defect has. The same key once more drops it.");
    return;
  }
  outbox.push({ view, call, kind, mask: call === "defect" && view.canvas ? exported(view.canvas) : Promise.resolve("") });
  view.problem = "";
  at += 1;
  show();
  send();
}

async function send() {
  if (sending) return;
  sending = true;
  while (outbox.length) {
    const { view, call, kind, mask } = outbox[0];
    const body = {
      session, call, kind, number: view.item.number, sha256: view.item.sha256, reviewer: $("reviewer").value,
      replaces: view.sent ? view.sent.seq : null,
    };
    try {
      view.sent = (await ask("/api/decide", { ...body, mask: await mask })).decision;
      outbox.shift();
    } catch (error) {
      if (error.status === 409) view.sent = error.data.decision;
      view.problem = `Not saved: ${error.message}`;
      outbox.length = 0; // those after it are still before this page
      at = views.indexOf(view);
      show();
    }
    if (views[at]) $("back").disabled = at === 0;
  }
  sending = false;
}

async function undo() {
  while (sending) await new Promise((done) => setTimeout(done, 10));
  try {
    const { taken_back: taken, item } = await ask("/api/undo", { session, reviewer: $("reviewer").value });
    if (item === null) {
      say(`Taken back: ${taken.call}. The picture is in this folder no more.`);
      return;
    }
    const place = views.findIndex((view) => view.item.number === item.number);
    if (place >= 0) {
      views[place].sent = null;
      views[place].problem = "";
      if (!views[place].box.childNodes.length) views[place] = makeView(item);
      at = place;
    } else {
      views.splice(at, 0, makeView(item));
    }
    show();
  } catch (error) {
    say(error.message);
  }
}

// Kinds of defects, the last one first; those that are not sent yet too.
function offeredKinds() {
  return [...new Set([...outbox.map(({ kind }) => kind).filter(Boolean).reverse(), ...kinds])].slice(0, DIGITS.length);
}

function chooseKind() {
  if ($("defect").disabled) return;
  const offered = offeredKinds();
  if (!$("kinds").hidden && offered.length) { decide("defect", offered[0]); return; }
  $("kinds").hidden = false;
  $("offered").replaceChildren(...offered.map((kind, place) => {
    const button = document.createElement("button");
    const key = document.createElement("kbd");
    key.textContent = place ? DIGITS[place] : "1 D";
    button.type = "button";
    button.append(kind, key);
    button.addEventListener("click", () => decide("defect", kind));
    return button;
  }));
  $("kind").value = "";
  if (!offered.length) $("kind").focus();
  $("kinds").scrollIntoView({ block: "nearest" });
}

// --- mask

function canvasOf(view) {
  if (!view.canvas) {
    view.canvas = document.createElement("canvas");
    [view.canvas.height, view.canvas.width] = view.item.preview_size;
    view.canvas.className = "over";
    view.box.append(view.canvas);
  }
  return view.canvas;
}

function loadMask(view, address) {
  const image = new Image();
  image.src = address;
  return image.decode().then(() => {
    canvasOf(view).getContext("2d").drawImage(image, 0, 0);
    view.dirty = true;
  });
}

async function takeRegion() {
  const view = views[at];
  if (!view || view.item.map_peak === null) return;
  try {
    await loadMask(view, `/region/${view.item.number}?level=${$("level").value}`);
  } catch {
    say("The map's region cannot be loaded; draw the mask, or load the page again.");
  }
}

function clearMask() {
  const view = views[at];
  if (!view || !view.canvas) return;
  view.canvas.getContext("2d").clearRect(0, 0, view.canvas.width, view.canvas.height);
  view.dirty = false;
}

function place(view, event) {
  const box = view.box.getBoundingClientRect();
  const [rows, columns] = view.item.preview_size;
  return [((event.clientX - box.left) * columns) / box.width, ((event.clientY - box.top) * rows) / box.height];
}

function startStroke(view, event) {
  if (!tool || event.button) return;
  event.preventDefault();
  view.box.setPointerCapture(event.pointerId);
  view.last = place(view, event);
  moveStroke(view, event);
}

function moveStroke(view, event) {
  if (!tool || !view.last) return;
  const context = canvasOf(view).getContext("2d");
  const to = place(view, event);
  context.globalCompositeOperation = tool === "eraser" ? "destination-out" : "source-over";
  context.strokeStyle = MARK;
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = Number($("size").value);
  context.beginPath();
  context.moveTo(...view.last);
  context.lineTo(...to);
  context.stroke();
  context.globalCompositeOperation = "source-over";
  view.last = to;
  view.dirty = true;
}

// The mask on black, so that a pixel is white by half and more of its opacity.
function exported(canvas) {
  const flat = document.createElement("canvas");
  [flat.width, flat.height] = [canvas.width, canvas.height];
  const context = flat.getContext("2d");
  context.fillRect(0, 0, flat.width, flat.height);
  context.drawImage(canvas, 0, 0);
  return new Promise((done) => flat.toBlob((blob) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.readAsDataURL(blob);
  }, "image/png"));
}

function use(name) {
  tool = tool === name ? null : name;
  for (const id of ["brush", "eraser"]) $(id).setAttribute("aria-pressed", String(tool === id));
  if (views[at]) views[at].box.classList.toggle("drawing", tool !== null);
}

function resizeBrush(by) {
  $("size").value = Number($("size").value) + by;
  $("size-value").textContent = $("size").value;
}

function toggleMap() {
  const shown = document.body.classList.toggle("no-map");
  $("map").setAttribute("aria-pressed", String(!shown));
}

function zoom(on) {
  $("zoom").setAttribute("aria-pressed", String(on));
  const view = views[at];
  if (!view || !view.picture) return;
  view.box.classList.toggle("zoomed", on);
  if (on && view.item.size[0] > view.item.preview_size[0] && !view.picture.src.includes("full")) view.picture.src += "&full=1";
}

// --- list and threshold

function cell(row, content, name = "") {
  const made = document.createElement("td");
  made.className = name;
  made.append(content);
  row.append(made);
}

async function fillList() {
  try {
    const { entries, total } = await ask(`/api/list?which=${$("which").value}`);
    $("listed").textContent = entries.length < total ? `${entries.length} of ${total}` : `${total} pictures`;
    $("rows").replaceChildren(...entries.map((entry) => {
      const row = document.createElement("tr");
      const decision = entry.decision;
      let name = entry.name;
      if (entry.number !== null) {
        name = document.createElement("button");
        name.type = "button";
        name.textContent = entry.name;
        name.addEventListener("click", () => openPicture(entry.number));
      }
      cell(row, name, "name");
      cell(row, (decision && decision.verdict) || "", decision ? CLASSES[decision.verdict] || "" : "");
      cell(row, decision && decision.score !== null ? decision.score.toFixed(3) : "");
      cell(row, decision ? decision.kind || CALLS[decision.call] : "");
      cell(row, decision ? decision.reviewer : "");
      return row;
    }));
  } catch (error) {
    $("listed").textContent = error.message;
  }
}

async function openPicture(number) {
  $("list").close();
  try {
    const place = views.findIndex((view) => view.item.number === number && view.box.childNodes.length);
    if (place >= 0) at = place;
    else views.splice(at, 0, makeView((await ask(`/api/item/${number}`)).item));
    show();
  } catch (error) {
    say(error.message);
  }
}

function svg(parent, name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
}

function drawScale({ score, threshold, unclear_from: unclear }) {
  const scale = $("scale");
  const x = (value) => 8 + 284 * Math.min(1, Math.max(0, value));
  svg(scale, "line", { class: "axis", x1: 8, x2: 292, y1: 24, y2: 24, "stroke-width": 6, "stroke-linecap": "round" });
  for (const [value, name] of [[unclear, "low"], [threshold, "mark"]]) {
    if (value === null) continue;
    svg(scale, "line", { class: name, x1: x(value), x2: x(value), y1: 12, y2: 36 });
  }
  svg(scale, "circle", { class: "dot", cx: x(score), cy: 24, r: 7 });
  for (const value of [0, 0.5, 1]) svg(scale, "text", { x: x(value), y: 45, "text-anchor": value ? (value === 1 ? "end" : "middle") : "start" }, value);
}

async function showThreshold() {
  $("threshold").showModal();
  for (const id of ["refusing", "missing", "histogram"]) $(id).replaceChildren();
  let found;
  try {
    found = await ask("/api/threshold");
  } catch (error) {
    $("evidence").textContent = error.message;
    return;
  }
  const said = [`${found.good.length} good pictures and ${found.defects.length} defects have scores.`];
  const words = (choice) => `${choice.threshold.toFixed(3)} (${choice.refused} good refused, ${choice.missed} defects missed)`;
  if (found.now) said.push(`The line's threshold is ${words(found.now)}.`);
  if (found.best) said.push(`The best F1 is at ${words(found.best)}.`);
  if (found.others) said.push(`${found.others} pictures with scores of other engines are left out.`);
  $("evidence").textContent = said.join(" ");
  for (const [id, choices, first, last] of [["refusing", found.refusing, "refused", "missed"], ["missing", found.missing, "missed", "refused"]]) {
    $(id).replaceChildren(...choices.map((choice) => {
      const row = document.createElement("tr");
      cell(row, String(choice[first]));
      cell(row, choice.threshold.toFixed(4));
      cell(row, String(choice[last]));
      return row;
    }));
  }
  drawHistogram(found);
}

function drawHistogram({ good, defects, now }) {
  const chart = $("histogram");
  const scores = [...good, ...defects, ...(now ? [now.threshold] : [])];
  if (!scores.length) return;
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  const span = high - low || 1;
  const bins = 40;
  const x = (value) => 10 + (580 * (value - low)) / span;
  const count = (values) => values.reduce((sums, value) => {
    sums[Math.min(bins - 1, Math.floor((bins * (value - low)) / span))] += 1;
    return sums;
  }, Array(bins).fill(0));
  const bars = [[count(good), "good-bar", -1], [count(defects), "bad-bar", 1]];
  const most = Math.max(...bars.flatMap(([sums]) => sums), 1);
  for (const [sums, name, way] of bars) {
    sums.forEach((sum, bin) => {
      const height = Math.max(3, (70 * sum) / most);
      if (sum) svg(chart, "rect", { class: name, x: 10 + (580 * bin) / bins, width: 580 / bins - 1, y: way < 0 ? 80 - height : 81, height });
    });
  }
  svg(chart, "line", { class: "axis", x1: 10, x2: 590, y1: 80.5, y2: 80.5 });
  if (now) svg(chart, "line", { class: "mark", x1: x(now.threshold), x2: x(now.threshold), y1: 4, y2: 158 });
  svg(chart, "text", { x: 590, y: 14, "text-anchor": "end" }, "good");
  svg(chart, "text", { x: 16, y: 152 }, "defects");
  svg(chart, "text", { x: 10, y: 174 }, low.toFixed(3));
  svg(chart, "text", { x: 590, y: 174, "text-anchor": "end" }, high.toFixed(3));
}

function showList() {
  $("list").showModal();
  fillList();
}

// --- keys and buttons

const KEYS = {
  g: () => decide("good"), d: chooseKind, s: () => decide("skip"), u: undo, ArrowLeft: () => step(-1), ArrowRight: () => step(1),
  m: toggleMap, b: () => use("brush"), e: () => use("eraser"), r: takeRegion, c: clearMask, l: showList, t: showThreshold,
  z: () => zoom($("zoom").getAttribute("aria-pressed") !== "true"), "[": () => resizeBrush(-4), "]": () => resizeBrush(4),
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
    $("kinds").hidden = true;
    document.activeElement.blur();
    return;
  }
  const typing = event.target.matches("input:not([type=range]), select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat || document.querySelector("dialog[open]")) return;
  if (event.target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
  const chosen = $("kinds").hidden ? undefined : offeredKinds()[DIGITS.indexOf(event.key)];
  if (chosen !== undefined) {
    event.preventDefault();
    decide("defect", chosen);
    return;
  }
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});

for (const [id, key] of Object.entries({
  good: "g", defect: "d", skip: "s", undo: "u", back: "ArrowLeft", on: "ArrowRight", map: "m", brush: "b", eraser: "e",
  region: "r", clear: "c", zoom: "z", "open-list": "l", "open-threshold": "t",
})) {
  $(id).addEventListener("click", (event) => {
    event.currentTarget.blur(); // or a blank would press it again
    KEYS[key]();
  });
}
$("kinds").addEventListener("submit", (event) => {
  event.preventDefault();
  $("kind").blur();
  if ($("kind").value.trim()) decide("defect", $("kind").value);
});
$("which").addEventListener("change", fillList);
$("size").addEventListener("input", () => resizeBrush(0));
$("level").addEventListener("input", () => {
  if (views[at]) views[at].level = Number($("level").value);
  $("level-value").textContent = Number($("level").value).toFixed(2);
});
$("level").addEventListener("change", () => { clearMask(); takeRegion(); });
$("reviewer").addEventListener("change", () => localStorage.setItem("reviewer", $("reviewer").value));
addEventListener("pagehide", () => {
  fetch("/api/release", { method: "POST", body: JSON.stringify({ session }), keepalive: true });
});

(async () => {
  resizeBrush(0);
  show();
  try {
    const start = await ask("/api/start");
    $("folder").textContent = $("folder").title = start.folder;
    $("reviewer").value = localStorage.getItem("reviewer") || start.reviewer;
  } catch (error) {
    say(error.message);
  }
  fill();
})();
