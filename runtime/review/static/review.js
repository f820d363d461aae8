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
    throw Object.assign(new Error("the server does not answer; start stlm review again, and repeat that here"), { status: 0 });
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
    // A server that was started again does not know what is before this page.
    const fresh = items.filter((item) => !views.some((view) => !view.sent && view.item.sha256 === item.sha256 && view.item.number === item.number));
    views.push(...fresh.map(makeView));
    exhausted = items.length === 0;
    if (fresh.length < items.length) setTimeout(fill);
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
    words.id = "nothing";
    stage.replaceChildren(words);
    showNothing();
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
  say(view.problem || (item.fault && !item.preview_size ? `${item.fault}; it can only be skipped (S)` : item.fault));
}

// Why there is no picture.
function showNothing() {
  if (!$("nothing")) return;
  $("nothing").textContent = counts === null ? "Loading…"
    : !counts.open ? "All pictures are decided. New ones that the line keeps appear here."
      : "The pictures that are left are before other reviewers. Those that they leave come here, those of a browser that "
        + "was killed after ten minutes. The list (L) has all of them.";
}

function showCounts() {
  const done = counts.good + counts.defect + counts.skip;
  const all = done + counts.open;
  $("counts").textContent = `${done} of ${all} · ${counts.disagree} disagree`;
  $("counts").title = `${counts.good} good, ${counts.defect} defects, ${counts.skip} skipped`;
  $("bar").style.width = `${all ? (100 * done) / all : 0}%`;
  $("progress").setAttribute("aria-label", `${done} of ${all} decided`);
  showNothing();
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
      if (error.status === 404) { // nobody can decide what is gone; the one that is shown stays
        outbox.shift();
        const place = views.indexOf(view);
        views.splice(place, 1);
        if (place < at) at -= 1; else show();
        say(error.message);
        fill(); // of another content it comes again
        continue;
      }
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
