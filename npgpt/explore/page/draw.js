"use strict";
// Pictures: strips and maps of cells on canvases, bars, curves.

const canvases = {}; // kept from picture to picture: that is far faster than new ones

function canvasOf(name) {
  return (canvases[name] ??= el("canvas", { "aria-hidden": "true" }));
}

/** Paint cells, rows x columns, of the colours that colour(row, column) gives. */
function paint(canvas, rows, columns, colour) {
  if (canvas.width !== columns) canvas.width = columns;
  if (canvas.height !== rows) canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let r = 0, at = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++, at += 4) {
      const [red, green, blue] = colour(r, c);
      image.data[at] = red;
      image.data[at + 1] = green;
      image.data[at + 2] = blue;
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}

/** A strip with a cell a token; hovering says what is there, a click chooses the position. */
function strip(row, label, values, scale, say) {
  const canvas = canvasOf(`${label} ${row}`);
  canvas.className = "strip";
  paint(canvas, 1, values.length, (_, c) => sequential(scale(values[c])));
  canvas.onpointermove = (event) => {
    const t = cellAt(event, values.length);
    hoverToken(t, `${label}, ${say(t)}: ${shown(values[t])}`);
  };
  canvas.onpointerleave = () => hoverToken(null);
  canvas.onclick = (event) => set({ p: cellAt(event, values.length), row: null });
  return el("div", { class: "strip-row" }, el("span", { class: "strip-name", text: label }), canvas);
}

function cellAt(event, count) {
  const box = event.currentTarget.getBoundingClientRect();
  return Math.min(count - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * count)));
}

/** A scale for norms: logarithmic between the smallest and the largest of all strips of a kind. */
function logScale(values) {
  let low = Infinity, high = 0;
  for (const x of values) {
    if (Number.isFinite(x) && x > 0) {
      low = Math.min(low, x);
      high = Math.max(high, x);
    }
  }
  const width = Math.log(high / low) || 1;
  return (x) => (x > 0 ? 0.08 + (0.92 * Math.log(x / low)) / width : x === 0 ? 0 : NaN);
}

/** The weights of a head, query by key: att (T, T). */
function paintAttention(canvas, att) {
  const T = att.shape[0];
  paint(canvas, T, T, (t, u) => (u > t ? palette.line : sequential(Math.sqrt(att[t * T + u]))));
}

/** The gradient of a head's weights. */
function paintGradient(canvas, datt, most) {
  const T = datt.shape[0];
  paint(canvas, T, T, (t, u) => {
    const value = datt[t * T + u] / most;
    return u > t ? palette.line : diverging(Math.sign(value) * Math.sqrt(Math.abs(value)));
  });
}

/** A row of a list of bars: a name, a bar from 0 to 1, a number. before draws where it was. */
function barRow({ name, value, text, before, action, pressed, key, muted }) {
  const bar = el("span", { class: "bar", style: { "--size": Math.min(1, Math.max(0, value)) } });
  if (before !== undefined) bar.append(el("span", { class: "bar-before", style: { "--size": before } }));
  const inside = [el("span", { class: "bar-name", text: name }), bar, el("span", { class: "bar-value", text })];
  const classes = `bar-row${muted ? " muted" : ""}`;
  if (!action) return el("li", { class: classes }, ...inside);
  const button = el("button", {
    class: "bar-button", type: "button", "data-key": key, "aria-pressed": String(Boolean(pressed)),
    on: { click: action },
  }, ...inside);
  return el("li", { class: classes }, button);
}

/** A row with a bar to the left or to the right of the middle. */
function signedRow(name, value, most, action) {
  const size = Math.abs(value || 0) / most;
  const bar = el("span", { class: `signed ${value < 0 ? "negative" : "positive"}`, style: { "--size": size } });
  const inside = [el("span", { class: "bar-name", text: name }), bar, el("span", { class: "bar-value", text: shown(value) })];
  if (!action) return el("li", { class: "bar-row" }, ...inside);
  return el("li", { class: "bar-row" }, el("button", { class: "bar-button", type: "button", "data-key": `part ${name}`, on: { click: action } }, ...inside));
}

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, props, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A curve of values over their numbers, null where one is none; with the axis' ends in words. */
function curve(values, { label, bottom }) {
  const width = 360, height = 130, left = 58, base = height - 18;
  const known = values.filter((v) => v !== null && Number.isFinite(v));
  let high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  const low = bottom ?? known.reduce((a, b) => Math.min(a, b), Infinity);
  if (high === low) high = low + 1e-9;
  const x = (i) => left + ((width - left - 8) * i) / Math.max(1, values.length - 1);
  const y = (v) => base - ((base - 10) * (v - low)) / (high - low);
  let d = "", pen = false;
  const each = Math.max(1, Math.floor(values.length / 720));
  values.forEach((v, i) => {
    if (i % each && i !== values.length - 1) return;
    if (v === null || !Number.isFinite(v)) pen = false;
    else {
      d += `${pen ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}`;
      pen = true;
    }
  });
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "curve" });
  for (const v of [high, low]) {
    picture.append(svg("line", { x1: left, x2: width - 8, y1: y(v), y2: y(v), class: "grid" }));
    picture.append(Object.assign(svg("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }), { textContent: shown(v) }));
  }
  picture.append(svg("path", { d, class: "line" }));
  const lost = values.findIndex((v) => v === null);
  if (lost >= 0) {
    picture.append(svg("line", { x1: x(lost), x2: x(lost), y1: 8, y2: base, class: "lost" }));
    picture.append(Object.assign(svg("text", { x: x(lost) - 5, y: 20, "text-anchor": "end" }), { textContent: "NaN" }));
  }
  return picture;
}
