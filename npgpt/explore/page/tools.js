"use strict";
// Elements, numbers and colours: what all other scripts use.

/** An element; props: attributes, but for text, on (listeners) and style (custom properties). */
function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name === "on") for (const [event, f] of Object.entries(value)) made.addEventListener(event, f);
    else if (name === "style") for (const [key, v] of Object.entries(value)) made.style.setProperty(key, v);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function byId(id) {
  return document.getElementById(id);
}

/** Put children in the place of what an element holds; the focus stays on what has the same data-key. */
function fill(parent, ...children) {
  const focused = parent.contains(document.activeElement) && document.activeElement.dataset.key;
  parent.replaceChildren(...children.filter(Boolean));
  if (focused) {
    for (const one of parent.querySelectorAll("[data-key]")) {
      if (one.dataset.key === focused) one.focus({ preventScroll: true });
    }
  }
}

/** Whether what an element shows was made of these same values when this was last asked. */
function unchanged(place, ...values) {
  const before = place.madeOf;
  place.madeOf = values;
  return Boolean(before) && values.every((value, i) => value === before[i]);
}

/** A number in four digits. */
function shown(x) {
  if (x === null || x === undefined || Number.isNaN(x)) return "NaN";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  const size = Math.abs(x);
  const text = size !== 0 && (size >= 1e5 || size < 1e-3) ? x.toExponential(2) : String(Number(x.toPrecision(4)));
  return text.replaceAll("-", "−").replace("e+", "e");
}

function percent(p) {
  if (p === null || Number.isNaN(p)) return "NaN";
  if (p > 0 && p < 1e-6) return "~0%";
  if (p > 0 && p < 0.001) return `${Number((100 * p).toPrecision(2))}%`;
  return `${(100 * p).toFixed(p < 0.0995 ? 1 : 0)}%`;
}

function counted(n, noun) {
  return `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
}

/** What JSON has of an array -> a Float32Array with its shape. */
function unpacked(value) {
  const text = atob(value.f32), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const content = new Float32Array(bytes.buffer);
  const array = value.causal ? withZeros(content, value.shape) : content;
  array.shape = value.shape;
  return array;
}

/** An array (..., T, T) from what it has up to the diagonal of each row. */
function withZeros(content, shape) {
  const array = new Float32Array(shape.reduce((a, b) => a * b, 1)), T = shape.at(-1);
  for (let row = 0, at = 0; row * T < array.length; row++) {
    const count = (row % T) + 1;
    array.set(content.subarray(at, at + count), row * T);
    at += count;
  }
  return array;
}

function parsed(text) {
  return JSON.parse(text, (_, value) => (value && value.f32 !== undefined ? unpacked(value) : value));
}

/** Part i of an array along its first axis. */
function part(array, ...index) {
  let shape = array.shape, start = 0, size = array.length;
  for (const i of index) {
    size /= shape[0];
    start += i * size;
    shape = shape.slice(1);
  }
  const found = array.subarray(start, start + size);
  found.shape = shape;
  return found;
}

// Colours: from the page's custom properties, which depend on the theme.

const palette = {}, ramps = {};

function readPalette() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["cell", "high", "plus", "minus", "ink", "soft", "line"]) {
    const hex = style.getPropertyValue(`--${name}`).trim();
    palette[name] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  }
  for (const name of ["high", "plus", "minus"]) ramps[name] = ramp(palette.cell, palette[name]);
}

const SHADES = 256;

/** The colours between two. */
function ramp(from, to) {
  return [...Array(SHADES).keys()].map((i) => mixed(from, to, i / (SHADES - 1)));
}

function shade(colours, value) {
  return colours[Math.round(Math.min(1, Math.max(0, value)) * (SHADES - 1))];
}

function mixed(from, to, amount) {
  return from.map((v, i) => Math.round(v + (to[i] - v) * amount));
}

/** The colour of a value from 0 to 1; of one that is no number: grey. */
function sequential(value) {
  if (!Number.isFinite(value)) return palette.soft;
  return shade(ramps.high, value);
}

/** The colour of a value from -1 to 1. */
function diverging(value) {
  if (!Number.isFinite(value)) return palette.soft;
  return shade(value < 0 ? ramps.minus : ramps.plus, Math.abs(value));
}

function css([r, g, b]) {
  return `rgb(${r} ${g} ${b})`;
}

function largest(array) {
  let most = 0;
  for (const x of array) if (Math.abs(x) > most) most = Math.abs(x);
  return most || 1;
}
