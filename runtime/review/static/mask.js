"use strict";
// What a mask is drawn with: the brush, the eraser, and the region of the map.

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

