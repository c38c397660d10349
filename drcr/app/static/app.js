// What app.py's page does in the browser. The server has the cube; points, views and the plot are made here.
"use strict";

const COLOURS = ["#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"]; // as in the figures, without yellow
const NAMES = { colour: "Colours", band: "One band", three: "Three bands", confidence: "Confidence", error: "Errors" };
const $ = id => document.getElementById(id);
const text = words => new Option(words).innerHTML; // as HTML
const near = (nm, all) => all.reduce((best, other, i) => Math.abs(other - nm) < Math.abs(all[best] - nm) ? i : best, 0);

let scene = null; // as PageScene.describe gives it, with its id
let points = []; // { box: [top, left, bottom, right], data: as PageScene.spectrum gives it }
let view = "colour", band = 0, three = [0, 0, 0], split = 0.5, mean = false;
let cursor = null; // [row, column] of the keyboard's cross
let hovered = null; // { box, data } below the mouse
let version = 0; // of what the server computes: addresses with another one are not in the browser's memory
let running = null; // AbortController of the work in progress

// ---- messages and work ----

function say(words) {
  $("message").textContent = words;
  $("message").hidden = !words;
}

function show_progress(stage, part) {
  const [label, bar] = $("progress").children;
  $("progress").hidden = !stage;
  label.textContent = part == null ? stage : `${stage} ${Math.round(100 * part)}%`;
  if (part == null) bar.removeAttribute("value"); else bar.value = part;
}

const broken = () => ({ error: "The connection to app.py broke off. Is it still running?" });

async function answer_of(response) {
  if (!response.headers.get("content-type").startsWith("application/json")) return { error: await response.text() };
  return response.json();
}

// send a request whose answer is lines on the progress, then the result; a new request takes the place of the last
async function work(address, body, done, stage = "Sending") {
  running?.abort();
  const mine = running = new AbortController();
  say("");
  show_progress(stage);
  try {
    const response = await fetch(address, { method: "POST", body, signal: mine.signal });
    let last;
    if (response.headers.get("content-type").startsWith("application/x-ndjson")) {
      let rest = "";
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const lines = (rest + part.value).split("\n");
        rest = lines.pop();
        for (const line of lines) {
          last = JSON.parse(line);
          if (last.stage) show_progress(last.stage, last.part);
        }
      }
    } else last = await answer_of(response);
    if (last.error) say(last.error); else done(last);
  } catch (error) {
    if (error.name !== "AbortError") say(broken().error);
  }
  if (running === mine) {
    running = null;
    show_progress("");
    if (scene) show_choices(); // as the scene has them, if what was asked for has failed
  }
}

function upload(address, files, done) {
  const size = files.reduce((sum, file) => sum + file.size, 0);
  if (size > page.max_upload) {
    return say(`${files[0].name}: ${Math.ceil(size / 1e6)} MB, but at most ${page.max_upload / 1e6} MB are taken (--max_upload).`);
  }
  const named = JSON.stringify(files.map(file => [file.name, file.size]));
  const more = address.includes("?") ? "&" : "?";
  return work(`${address}${more}files=${encodeURIComponent(named)}`, new Blob(files), done);
}

function adjust(changes) {
  const asked = { reference: scene.reference, light: scene.light, floor: +$("floor").value, ...changes };
  return work(`${scene.id}/adjust`, JSON.stringify(asked), update, "Scaling");
}

// ---- scenes ----

function open_scene(found) {
  const same = scene && scene.width === found.width && scene.height === found.height && scene.name === found.name;
  scene = null;
  if (!same) points = [];
  cursor = hovered = null;
  three = [620, 540, 460].map(nm => near(nm, found.wavelengths));
  if (!same) [band, view] = [near(550, found.wavelengths), "colour"];
  update(found);
}

// show a scene, or what changed of it
function update(changes) {
  const before = scene?.scores;
  scene = { ...scene, ...changes };
  version += 1;
  $("drop").hidden = true;
  for (const id of ["views", "frame", "plotted", "about"]) $(id).hidden = false;
  $("lines").textContent = scene.lines.join(". ");
  $("encoding").hidden = !scene.encoding;
  show_choices();
  $("scaled").textContent = scene.reference ? `The cube is ${scene.scaled}.` : "";
  $("unscale").hidden = !scene.reference;
  for (const link of document.querySelectorAll("[data-cube]")) link.href = `${scene.id}/cube/${link.dataset.cube}`;
  if (!before && scene.scores) mean = true;
  if (!views().includes(view)) view = "colour";
  show_scores();
  show_views();
  show_view();
  for (const point of points) {
    point.data = null; // rather no curve than one of before
    measure(point);
  }
  show_points();
}

function show_choices() {
  for (const radio of $("encoding").querySelectorAll("input")) radio.checked = radio.value === scene.encoding;
  if (![...$("lamp").options].some(option => option.value === scene.light)) $("lamp").add(new Option(scene.light, scene.light), 1);
  $("lamp").value = scene.light;
}

function views() {
  return Object.keys(NAMES).filter(name => (name !== "confidence" || scene.confidence) && (name !== "error" || scene.scores));
}

function show_views() {
  $("views").innerHTML = views().map(name =>
    `<label><input type="radio" name="view" value="${name}"${name === view ? " checked" : ""}><span>${NAMES[name]}</span></label>`).join("");
}

function choose_view(name) {
  view = name;
  for (const radio of $("views").querySelectorAll("input")) radio.checked = radio.value === name;
  show_view();
  draw_plot();
}

function show_scores() {
  const scores = scene.scores;
  $("scores").innerHTML = !scores ? "" : `<table>${scores.table.map(([name, value]) => `<tr><td>${name}</td><td>${value}</td></tr>`).join("")}</table>`
    + `<p class="note">${text([scores.truth, scores.raised, ...scores.notes].join(". "))}.</p>`;
}

// ---- the picture ----

const source = (name, bands = "") => `${scene.id}/view/${name}.png?bands=${bands}&v=${version}`;
const nm = index => `${+scene.wavelengths[index].toPrecision(4)} nm`;
const number = value => `${+value.toPrecision(3)}`;

// whether a line divides the picture: on its left the photograph, on its right what was made of it
const is_split = () => view === "confidence" || (view === "colour" && scene.photo);

function sources() {
  if (view === "band") return [source("bands", band)];
  if (view === "three") return [source("bands", three)];
  if (view === "error") return [source("error", mean ? "" : band)];
  return [source(scene.photo ? "photo" : "colour"), source(view)].slice(is_split() ? 0 : 1);
}

function show_view() {
  const picture = $("picture"), { width, height } = scene;
  if (picture.dataset.size !== `${width} ${height}`) {
    picture.dataset.size = `${width} ${height}`;
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    $("frame").style.setProperty("--shape", width / height);
    picture.innerHTML = `<defs><clipPath id="right"><rect height="${height}" width="${width}"/></clipPath></defs>`
      + `<image width="${width}" height="${height}"/><image width="${width}" height="${height}" clip-path="url(#right)"/>`
      + `<line id="divider" y2="${height}"/><g id="marks"></g>`;
  }
  picture.setAttribute("aria-label", `${scene.name}, ${width} x ${height} pixels, ${NAMES[view]}`);
  const images = picture.querySelectorAll("image"), wanted = sources();
  images.forEach((image, i) => {
    image.dataset.wanted = wanted[i] ?? "";
    if (!wanted[i]) return image.removeAttribute("href");
    const next = new Image(); // no flicker: the picture changes when the next one is loaded
    next.onload = () => image.dataset.wanted === wanted[i] && image.setAttribute("href", wanted[i]);
    next.src = wanted[i];
  });
  show_controls();
  show_split();
  show_caption();
  show_marks();
}

function show_split() {
  const compared = is_split(), x = split * scene.width;
  const [left, right] = $("frame").querySelectorAll(".corner");
  left.textContent = scene.photo ? "Photograph" : "Colours";
  right.textContent = view === "confidence" ? "Confidence" : "Reconstruction";
  $("frame").classList.toggle("compared", compared);
  for (const [name, value] of [["x1", x], ["x2", x]]) $("divider").setAttribute(name, value);
  $("picture").querySelector("clipPath rect").setAttribute("x", compared ? x : 0);
  $("divider").setAttribute("visibility", compared ? "visible" : "hidden");
}

function slider(id, label, value, most, shown) {
  return `<label class="slider"><span>${label}</span><input type="range" id="${id}" min="0" max="${most}" step="any" value="${value}"><output>${shown}</output></label>`;
}

function show_controls() {
  const most = scene.wavelengths.length - 1, controls = $("controls");
  if (controls.dataset.view === `${view} ${scene.id}`) {
    for (const [i, input] of [...controls.querySelectorAll("input[data-band]")].entries()) {
      const index = view === "three" ? three[i] : band;
      if (Math.round(+input.value) !== index) input.value = index;
      input.nextElementSibling.textContent = nm(index);
      input.setAttribute("aria-valuetext", nm(index));
    }
    return;
  }
  controls.dataset.view = `${view} ${scene.id}`;
  controls.innerHTML = {
    colour: scene.photo ? slider("split", "Photograph", split, 1, "Reconstruction") : "",
    confidence: slider("split", scene.photo ? "Photograph" : "Colours", split, 1, "Confidence"),
    band: slider("band", "Band", band, most, nm(band)),
    three: ["Red", "Green", "Blue"].map((name, i) => slider(`three${i}`, name, three[i], most, nm(three[i]))).join(""),
    error: `<label class="note"><input id="mean" type="checkbox"${mean ? " checked" : ""}> mean over all bands</label>` + slider("band", "Band", band, most, nm(band)),
  }[view];
  for (const [i, input] of [...controls.querySelectorAll("input[type=range]")].entries()) {
    if (input.id !== "split") {
      input.step = 1;
      input.dataset.band = i;
      input.setAttribute("aria-valuetext", input.nextElementSibling.textContent);
    }
    input.oninput = () => {
      if (input.id === "split") {
        split = +input.value;
        return show_split();
      }
      if (view === "three") three[i] = +input.value; else band = +input.value;
      if (view === "error") mean = $("mean").checked = false;
      show_view();
      draw_plot();
    };
  }
  if (view === "error") $("mean").onchange = () => { mean = $("mean").checked; show_view(); };
}

function show_caption() {
  const confidence = scene.confidence, scores = scene.scores;
  $("caption").innerHTML = {
    colour: () => `<p>${text(scene.photo ? scene.difference : "In true colour, under light of equal energy.")}</p>`,
    band: () => `<p><b>${nm(band)}</b> band ${band + 1} of ${scene.wavelengths.length}; white is ${number(scene.whites[band])}</p>`,
    three: () => `<p>Red ${nm(three[0])}, green ${nm(three[1])}, blue ${nm(three[2])}, each scaled to its own brightest pixels</p>`,
    confidence: () => `<p>${confidence.legend.map(level => `<span class="legend"><span class="level" style="background: ${level.colour}"></span>${level.words} ${Math.round(100 * level.share)}%</span>`).join(" ")}</p>`
      + `<p>${text(confidence.words)}</p>` + (confidence.formula ? `<details><summary>What does this mean?</summary><p>${text(confidence.formula)}. `
      + "The error is the spectral angle between this and the true spectrum: 0° is the same shape, under 10° is close. "
      + "Blue: an error up to 10° is to be expected. Yellow: up to 15°, or a clipped pixel. Orange: more, or a colour that the training images do not have. "
      + "It holds for pictures of the kind that the network was trained on, not under a fluorescent lamp.</p></details>" : ""),
    error: () => `<p><b>${mean ? "All bands" : nm(band)}</b> relative error <span class="scale">0<span style="background: linear-gradient(90deg, ${scores.colours})"></span>${scores.scale} or more</span></p>`,
  }[view]();
}

// ---- points and regions ----

const is_point = box => box[0] === box[2] && box[1] === box[3];
const place = box => is_point(box) ? `row ${box[0]}, column ${box[1]}` : `rows ${box[0]}-${box[2]}, columns ${box[1]}-${box[3]}`;
const middle = box => [(box[0] + box[2] + 1) / 2, (box[1] + box[3] + 1) / 2]; // y, x

function mark_size() { // in pixels of the image: 9 pixels of the screen, as far as it is shown
  const shown = $("picture").getBoundingClientRect().width || 700;
  return 9 * scene.width / shown;
}

function marks_as_svg() {
  const size = mark_size();
  const marks = points.map(({ box }, i) => {
    const [y, x] = middle(box), aside = is_point(box) ? x + 1.7 * size * (x < scene.width - 3 * size ? 1 : -1) : x;
    const shape = is_point(box)
      ? `<circle cx="${x}" cy="${y}" r="${size / 2.5}" fill="none" stroke="black" stroke-width="${size / 4}"/><circle cx="${x}" cy="${y}" r="${size / 2.5}" fill="none"/>`
      : ["black", "white"].map((stroke, k) => `<rect x="${box[1]}" y="${box[0]}" width="${box[3] + 1 - box[1]}" height="${box[2] + 1 - box[0]}" fill="none" stroke="${stroke}" stroke-width="${size / (4 + 4 * k)}"/>`).join("");
    return `<g class="mark" data-number="${i}" stroke="white" stroke-width="${size / 8}"><title>${place(box)}</title>${shape}`
      + `<circle cx="${aside}" cy="${y}" r="${size}" fill="${COLOURS[i]}"/>`
      + `<text x="${aside}" y="${y + size / 2}" font-size="${1.4 * size}" font-family="sans-serif" font-weight="bold" text-anchor="middle" stroke="none" fill="${i < 3 ? "white" : "black"}">${i + 1}</text></g>`;
  });
  if (cursor) {
    const [y, x] = [cursor[0] + 0.5, cursor[1] + 0.5], long = 1.5 * size;
    for (const [stroke, wide] of [["black", 3], ["white", 6]]) {
      marks.push(`<path d="M${x - long} ${y}h${2 * long}M${x} ${y - long}v${2 * long}" stroke="${stroke}" stroke-width="${size / wide}"/>`);
    }
  }
  return marks.join("");
}

function show_marks() {
  $("marks").innerHTML = marks_as_svg();
}

async function spectrum(box) {
  return fetch(`${scene.id}/spectrum?box=${box}`).then(answer_of, broken);
}

async function measure(point) {
  const asked = `${point.box}`, data = await spectrum(point.box);
  if (asked !== `${point.box}`) return; // it has been moved meanwhile
  if (data.hidden || data.error) {
    say(data.error ?? "Transparent pixels have no spectrum.");
    points = points.filter(other => other !== point);
    show_marks();
  } else point.data = data;
  show_points();
}

function add(box) {
  say("");
  if (points.length === COLOURS.length) return say(`At most ${COLOURS.length} points and regions; click one to remove it.`);
  points.push({ box, data: null });
  measure(points.at(-1));
  show_marks();
  show_points();
}

function remove(index) {
  say("");
  points.splice(index, 1);
  show_marks();
  show_points();
}

function toggle(row, column) {
  const index = points.findIndex(({ box }) => `${box}` === `${[row, column, row, column]}`);
  if (index >= 0) remove(index); else add([row, column, row, column]);
}

function show_points() {
  const levels = scene.confidence?.legend.slice().reverse();
  $("points").innerHTML = points.map(({ box, data }, i) => {
    const error = data && levels ? `<span class="level" style="background: ${levels[data.level].colour}"></span>${levels[data.level].words}, error about ${Math.round(data.angle)}°` : "";
    const white = is_point(box) ? `<button data-white="${i}" title="Scale the cube so that this point has the reflectance below">white</button>` : "";
    return `<tr><td><span class="badge" style="background: ${COLOURS[i]}; color: ${i < 3 ? "white" : "black"}">${i + 1}</span></td>`
      + `<td>${place(box)}${data?.spread ? `, mean of ${data.pixels} pixels` : ""}<br><span class="note">${error}</span></td>`
      + `<td>${white}<button data-remove="${i}" aria-label="Remove ${i + 1}">&times;</button></td></tr>`;
  }).join("");
  $("hint").hidden = points.length > 1;
  $("clear").disabled = !points.length;
  for (const name of ["csv", "plot.png", "plot.svg"]) document.querySelector(`[data-save="${name}"]`).disabled = !points.length;
  draw_plot();
}

// ---- mouse, touch and keyboard on the picture ----

function pixel(event) {
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform($("picture").getScreenCTM().inverse());
  const inside = (value, most) => Math.min(Math.max(Math.floor(value), 0), most - 1);
  return [inside(at.y, scene.height), inside(at.x, scene.width)];
}

let held = null; // what the pointer holds: { start, from, moved, mark, box, divider, drawing, timer }
const LONG_PRESS = 400; // milliseconds after which a finger draws a rectangle instead of moving the page

function press(event) {
  if (event.button || !scene) return;
  const [row, column] = pixel(event), mark = event.target.closest(".mark");
  const on_divider = is_split() && Math.abs(column + 0.5 - split * scene.width) < mark_size() && !mark;
  held = { start: [event.clientX, event.clientY], from: [row, column], moved: false, divider: on_divider, mark: mark && points[mark.dataset.number] };
  if (held.mark) held.box = [...held.mark.box];
  const press_of = held;
  held.drawing = event.pointerType !== "touch";
  if (held.drawing || mark) $("picture").setPointerCapture(event.pointerId);
  else held.timer = setTimeout(() => { press_of.drawing = true; draw_region(row, column); }, LONG_PRESS);
  cursor = null;
}

function move(event) {
  if (!scene) return;
  const [row, column] = pixel(event);
  if (!held) return hover(row, column);
  held.moved ||= Math.hypot(event.clientX - held.start[0], event.clientY - held.start[1]) > 4;
  if (!held.moved) return;
  clearTimeout(held.timer);
  if (held.mark) {
    const [top, left, bottom, right] = held.box;
    const down = Math.min(Math.max(row - held.from[0], -top), scene.height - 1 - bottom);
    const over = Math.min(Math.max(column - held.from[1], -left), scene.width - 1 - right);
    held.mark.box = [top + down, left + over, bottom + down, right + over];
    show_marks();
  } else if (held.divider) {
    split = (column + 0.5) / scene.width;
    $("split").value = split;
    show_split();
  } else if (held.drawing) held.region = draw_region(row, column);
}

function draw_region(row, column) {
  const [top, left, bottom, right] = [Math.min(row, held.from[0]), Math.min(column, held.from[1]), Math.max(row, held.from[0]), Math.max(column, held.from[1])];
  $("marks").innerHTML = `${marks_as_svg()}<rect x="${left}" y="${top}" width="${right + 1 - left}" height="${bottom + 1 - top}" fill="#ffffff40" stroke="white" stroke-width="${mark_size() / 5}"/>`;
  return [top, left, bottom, right];
}

function release() {
  if (!held) return;
  clearTimeout(held.timer);
  const { mark, moved, region, from, divider } = held;
  held = null;
  if (mark && moved) measure(mark);
  else if (mark) remove(points.indexOf(mark));
  else if (region) { add(region); show_marks(); }
  else if (!moved) toggle(...from);
  else if (!divider) show_marks();
}

function tell(row, column, data) {
  if (data.hidden || data.error) return $("readout").textContent = data.error ?? "A transparent pixel";
  const levels = scene.confidence?.legend.slice().reverse();
  const error = levels ? `; ${levels[data.level].words}, error about ${Math.round(data.angle)}°` : "";
  $("readout").textContent = `Row ${row}, column ${column}: ${number(data.values[band])} at ${nm(band)}${error}`;
}

// one request at a time; the last place asked for is never left out
let asked = null, asking = false;
async function hover(row, column) {
  asked = [row, column];
  if (asking) return;
  asking = true;
  while (asked) {
    const [at, over] = asked;
    asked = null;
    const data = await spectrum([at, over, at, over]);
    tell(at, over, data);
    hovered = data.values ? { data } : null;
    draw_plot();
  }
  asking = false;
}

function key(event) {
  const step = event.shiftKey ? 10 : 1;
  const steps = { ArrowUp: [-step, 0], ArrowDown: [step, 0], ArrowLeft: [0, -step], ArrowRight: [0, step] }[event.key];
  if (!scene || !(steps || event.key === "Enter" || event.key === " ")) return;
  event.preventDefault();
  const [row, column] = cursor ?? [Math.floor(scene.height / 2), Math.floor(scene.width / 2)];
  if (steps) {
    const inside = (value, most) => Math.min(Math.max(value, 0), most - 1);
    cursor = [inside(row + steps[0], scene.height), inside(column + steps[1], scene.width)];
    show_marks();
    hover(...cursor);
  } else if (cursor) toggle(row, column);
  else { cursor = [row, column]; show_marks(); hover(row, column); }
}

// ---- the plot ----

// as wide as its place, so that its letters are as large as the page's; files have the width 560
function plot_frame(width = 560) {
  const height = Math.round(0.59 * width);
  return { width, height, left: 52, right: width - 20, top: 14, bottom: height - 44 };
}
const shown_frame = () => plot_frame(Math.min(Math.max($("plot").clientWidth, 300), 700));

function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find(n => n * power >= raw) * power;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-6); i * step <= high + 1e-9; i++) found.push(+(i * step).toPrecision(6));
  return found;
}

function plot_as_svg(ink, paper, grid, frame = plot_frame()) {
  const { width, height, left, right, top, bottom } = frame, w = scene.wavelengths, [first, last] = [w[0], w.at(-1)];
  const normal = $("normalise").checked;
  const scaled = (values, by = values) => normal ? values.map(value => value / Math.max(...by)) : values;
  const curves = points.map(({ data }, i) => ({ data, colour: COLOURS[i], number: i + 1 })).filter(({ data }) => data);
  if (hovered) curves.push({ data: { values: hovered.data.values }, colour: grid.hover });
  const all = curves.flatMap(({ data }) => [...scaled(data.values), ...(data.truth ? scaled(data.truth) : [])]);
  const high = Math.max(...all, 1e-6), low = Math.min(...all, 0), room = 0.04 * (high - low);
  const x = nm => left + (nm - first) / (last - first || 1) * (right - left);
  const y = value => bottom - (value - low) / (high + room - low) * (bottom - top);
  const line = values => values.map((value, i) => `${i ? "L" : "M"}${x(w[i]).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const label = normal ? "relative to the maximum" : scene.light ? `radiance under ${scene.light}` : scene.reference ? "reflectance" : scene.photo ? "reflectance (estimated)" : "value";
  let out = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="12" fill="${ink}">`
    + `<rect width="${width}" height="${height}" fill="${paper}"/>`;
  for (const value of ticks(low, high + room, 5)) {
    out += `<path d="M${left} ${y(value)}H${right}" stroke="${grid.line}"/><text x="${left - 6}" y="${y(value) + 4}" text-anchor="end">${value}</text>`;
  }
  for (const value of ticks(first, last, width / 90)) {
    out += `<path d="M${x(value)} ${bottom}v4" stroke="${ink}"/><text x="${x(value)}" y="${bottom + 18}" text-anchor="middle">${value}</text>`;
  }
  out += `<path d="M${left} ${top}V${bottom}H${right}" stroke="${ink}" fill="none"/><text x="${(left + right) / 2}" y="${height - 6}" text-anchor="middle">wavelength (nm)</text>`
    + `<text transform="translate(12 ${(top + bottom) / 2}) rotate(-90)" text-anchor="middle">${text(label)}</text>`;
  const lines = view === "three" ? three.map((index, i) => [index, ["#e33", "#2a2", "#36f"][i]]) : [[band, grid.hover]];
  for (const [index, colour] of lines) out += `<path class="band" d="M${x(w[index])} ${top}V${bottom}" stroke="${colour}" stroke-dasharray="2 2"/>`;
  const ends = [];
  for (const { data, colour, number } of curves) {
    const values = scaled(data.values);
    if (data.spread) {
      const spread = scaled(data.spread, data.values);
      const edge = sign => values.map((value, i) => value + sign * spread[i]);
      const back = edge(-1).map((value, i) => `L${x(w[i]).toFixed(1)} ${y(value).toFixed(1)}`).reverse().join("");
      out += `<path d="${line(edge(1))}${back}Z" fill="${colour}" opacity="0.2"/>`;
    }
    out += `<path ${number ? 'class="curve" ' : ""}d="${line(values)}" stroke="${colour}" stroke-width="${number ? 2 : 1.2}" fill="none"/>`;
    if (data.truth) out += `<path d="${line(scaled(data.truth))}" stroke="${colour}" stroke-width="1.5" stroke-dasharray="5 3" fill="none"/>`;
    if (number) ends.push([y(values.at(-1)), number, colour]);
  }
  ends.sort((a, b) => b[0] - a[0]);
  let above = Infinity;
  for (const [at, number, colour] of ends) {
    above = Math.min(at, above - 12);
    out += `<text x="${right + 5}" y="${above + 4}" font-weight="bold" fill="${colour}">${number}</text>`;
  }
  if (curves.some(({ data }) => data.truth)) {
    out += `<path d="M${left + 10} ${top + 4}h24" stroke="${ink}" stroke-width="2"/><text x="${left + 40}" y="${top + 8}">reconstruction</text>`
      + `<path d="M${left + 140} ${top + 4}h24" stroke="${ink}" stroke-width="1.5" stroke-dasharray="5 3"/><text x="${left + 170}" y="${top + 8}">ground truth</text>`;
  }
  if (!curves.length) out += `<text x="${(left + right) / 2}" y="${(top + bottom) / 2}" text-anchor="middle" opacity="0.7">Click in the picture to plot spectra here.</text>`;
  return `${out}</svg>`;
}

const dark = matchMedia("(prefers-color-scheme: dark)");
const LIGHT_PLOT = ["#1d2329", "#ffffff", { line: "#e3e6e9", hover: "#888888" }];
const DARK_PLOT = ["#d9dee3", "#20262c", { line: "#363d45", hover: "#9aa4ae" }];

function draw_plot() {
  $("plot").innerHTML = plot_as_svg(...(dark.matches ? DARK_PLOT : LIGHT_PLOT), shown_frame());
  const drawing = $("plot").firstChild;
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", `Spectra of ${points.length} points and regions, ${nm(0)} to ${nm(scene.wavelengths.length - 1)}`);
}

function plot_band(event) {
  const box = $("plot").getBoundingClientRect(), { width, left, right } = shown_frame(), w = scene.wavelengths;
  const part = ((event.clientX - box.left) / box.width * width - left) / (right - left);
  return near(w[0] + part * (w.at(-1) - w[0]), w);
}

// ---- downloads ----

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function as_data(address) {
  const blob = await (await fetch(address)).blob();
  return new Promise(done => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.readAsDataURL(blob);
  });
}

async function view_as_svg() {
  const copy = $("picture").cloneNode(true);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  for (const image of copy.querySelectorAll("image")) {
    const address = image.getAttribute("href");
    if (address) image.setAttribute("href", await as_data(address)); else image.remove();
  }
  const line = copy.querySelector("#divider");
  if (line.getAttribute("visibility") === "hidden") line.remove();
  else line.setAttribute("style", `stroke: white; stroke-width: ${mark_size() / 4}`);
  return copy.outerHTML;
}

async function as_png(svg, width, height) {
  const image = new Image();
  image.src = URL.createObjectURL(new Blob([svg.replace("<svg ", `<svg width="${width}" height="${height}" `)], { type: "image/svg+xml" }));
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width, height }), context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, 0, width, height);
  URL.revokeObjectURL(image.src);
  return new Promise(done => canvas.toBlob(done, "image/png"));
}

function spectra_as_csv() {
  const columns = [["wavelength_nm", scene.wavelengths]];
  for (const { box, data } of points.filter(point => point.data)) {
    const name = is_point(box) ? `${box[0]},${box[1]}` : `${box[0]}-${box[2]},${box[1]}-${box[3]}`;
    columns.push([name, data.values]);
    if (data.spread) columns.push([`sd ${name}`, data.spread]);
    if (data.truth) columns.push([`truth ${name}`, data.truth]);
  }
  const rows = scene.wavelengths.map((_, i) => columns.map(([, values]) => values[i]).join(","));
  return `${[columns.map(([name]) => `"${name}"`).join(","), ...rows].join("\n")}\n`;
}

async function download(kind) {
  say("");
  const svg = { type: "image/svg+xml" }, name = `${scene.name}_${kind}`;
  const scale = Math.max(1, Math.round(1000 / Math.max(scene.width, scene.height)));
  if (kind === "csv") save(new Blob([spectra_as_csv()], { type: "text/csv" }), `${scene.name}_spectra.csv`);
  if (kind === "plot.svg") save(new Blob([plot_as_svg(...LIGHT_PLOT)], svg), name);
  if (kind === "plot.png") save(await as_png(plot_as_svg(...LIGHT_PLOT), 3 * plot_frame().width, 3 * plot_frame().height), name);
  if (kind === "view.svg") save(new Blob([await view_as_svg()], svg), name);
  if (kind === "view.png") save(await as_png(await view_as_svg(), scale * scene.width, scale * scene.height), name);
}

// ---- events ----

function choose_files(files) {
  if (files.length) upload("open", [...files], open_scene);
}

$("file").onchange = event => { choose_files(event.target.files); event.target.value = ""; };
$("drop").onclick = () => $("file").click();
addEventListener("dragover", event => event.preventDefault());
addEventListener("drop", event => { event.preventDefault(); choose_files(event.dataTransfer.files); });
$("example").onclick = () => work("example", null, open_scene);
$("progress").lastElementChild.onclick = () => { running?.abort(); running = null; show_progress(""); };
$("views").onchange = event => { say(""); choose_view(event.target.value); };
$("encoding").onchange = event => work(`${scene.id}/again?as=${event.target.value}`, null, open_scene);
$("truth").onchange = event => {
  const files = [...event.target.files];
  event.target.value = "";
  if (files.length) upload(`${scene.id}/truth?floor=${+$("floor").value}`, files, update);
};
$("floor").onchange = () => scene.scores && adjust({});
$("unscale").onclick = () => adjust({ reference: null });
$("lamp").onchange = () => $("lamp").value === "file" ? $("table").click() : adjust({ light: $("lamp").value });
$("table").onchange = async event => {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) adjust({ light: file.name, table: await file.text() });
};
$("table").oncancel = () => $("lamp").value = scene.light;
$("points").onclick = event => {
  const { white, remove: index } = event.target.dataset;
  if (index) remove(+index);
  if (white) adjust({ reference: [points[white].box[0], points[white].box[1], +$("reflectance").value] });
};
$("clear").onclick = () => { say(""); points = []; show_marks(); show_points(); };
$("normalise").onchange = draw_plot;
document.querySelectorAll("[data-save]").forEach(button => button.onclick = () => download(button.dataset.save));
Object.assign($("picture"), { onpointerdown: press, onpointermove: move, onpointerup: release, onkeydown: key });
$("picture").onpointercancel = () => { clearTimeout(held?.timer); held = null; show_marks(); };
$("picture").addEventListener("touchmove", event => { if (held?.drawing) event.preventDefault(); }, { passive: false });
$("picture").oncontextmenu = event => { if (held?.drawing && held.timer) event.preventDefault(); };
$("picture").onpointerleave = () => { asked = null; hovered = null; $("readout").textContent = ""; if (scene) draw_plot(); };
$("plot").onclick = event => { band = plot_band(event); if (view !== "band" && view !== "error") choose_view("band"); else { mean = false; show_view(); draw_plot(); } };
$("plot").onpointermove = event => {
  const index = plot_band(event), read = points.filter(({ data }) => data).map(({ data }, i) => `${i + 1}: ${number(data.values[index])}`);
  $("values").textContent = [nm(index), ...read].join("  ");
};
$("plot").onpointerleave = () => $("values").textContent = "";
dark.onchange = () => scene && draw_plot();
addEventListener("resize", () => { if (scene) { show_marks(); draw_plot(); } });

let page = { max_upload: Infinity };
fetch("settings").then(answer => answer.json()).then(found => {
  page = found;
  $("floor").value = found.floor;
  for (const name of found.lamps) $("lamp").add(new Option(name, name));
  $("lamp").add(new Option("from a file (.csv) ...", "file"));
});
