"use strict";
// The scale of a score, the list of pictures, and what the threshold would have to be.

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

