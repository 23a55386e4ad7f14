"use strict";
// What is chosen, in the address too, and what is known about it.

const LARGEST = -1; // the channel of the largest number
const BUNDLED = ["addition", "tiny"]; // models that a link can name
const DEFAULTS = {
  model: null, view: "forward", text: null, p: null, block: 0, head: null, pattern: "", tensor: null, row: null,
  channel: null, token: null, target: "text", temperature: 1, k: 0, top: 1, lr: null, from: "task", edits: [],
};
const state = { ...DEFAULTS };
const data = { model: null, notice: "", progress: null, version: 0, frame: 0 };
const failed = {};
let saved = null; // a page that was written to a file: its answers

/** Choose something: the address, what is asked and what is shown follow. */
function set(changes) {
  Object.assign(state, changes);
  settle();
  writeAddress();
  render();
  askWanted();
}

/** What does not fit the model or the text is brought back into it. */
function settle() {
  const { n_layer: L, n_head: NH } = data.model.config;
  if (state.block !== null) state.block = Math.min(Math.max(0, state.block), L - 1);
  if (state.head !== null) state.head = Math.min(Math.max(0, state.head), NH - 1);
  const T = data.picture?.tokens.length;
  if (T && state.p !== null && data.pictureText === state.text) state.p = Math.min(Math.max(0, state.p), T - 1);
}

/** The chosen position: the last one, unless another was chosen. */
function positionNow() {
  const T = data.picture ? data.picture.tokens.length : 1;
  return state.p === null ? T - 1 : Math.min(state.p, T - 1);
}

let addressTimer = 0; // until the address is written: browsers refuse to write it many times a second

function writeAddress() {
  addressTimer ||= setTimeout(() => {
    addressTimer = 0;
    history.replaceState(null, "", address());
  }, 400);
}

/** The address of this view. */
function address() {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (JSON.stringify(value) !== JSON.stringify(DEFAULTS[name])) {
      words.set(name, typeof value === "string" ? value : JSON.stringify(value));
    }
  }
  return `${location.href.split("#")[0]}#${words}`;
}

/** Take what the address says, where it is of the kind that is expected. */
function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const kinds = {
    model: (v) => BUNDLED.includes(v),
    view: (v) => ["forward", "backward", "learn", "edit"].includes(v), text: () => true,
    pattern: () => true, tensor: () => true, target: (v) => ["text", "one"].includes(v), from: (v) => ["task", "text"].includes(v),
  };
  for (const name of Object.keys(DEFAULTS)) {
    let value = words.get(name);
    if (value === null) {
      state[name] = DEFAULTS[name];
      continue;
    }
    if (kinds[name]) {
      if (kinds[name](value)) state[name] = value;
      continue;
    }
    try {
      value = JSON.parse(value);
    } catch {
      continue;
    }
    const list = name === "edits" || name === "row";
    if (list ? Array.isArray(value) : Number.isFinite(value)) state[name] = value;
  }
}

// What is asked, by item: the question and its arguments, or null where it is not needed now.

const WANTED = {
  picture: (s) => ["picture", { text: s.text, edits: s.edits }],
  plain: (s) => (s.edits.length ? ["picture", { text: s.text, edits: [] }] : null),
  position: (s) => ["position", { text: s.text, position: positionNow(), token: s.token, edits: s.edits }],
  plainPosition: (s) =>
    s.edits.length ? ["position", { text: s.text, position: positionNow(), token: s.token, edits: [] }] : null,
  block: (s) =>
    s.view === "forward" ? ["block", { text: s.text, block: s.block, position: positionNow(), edits: s.edits }] : null,
  backward: (s) => (s.view === "backward" ? ["backward", { text: s.text, ...aim(), edits: s.edits }] : null),
  numbers: (s) => (numbersShown() ? ["numbers", { text: s.text, name: tensorNow(), row: rowNow(), ...aim(), edits: s.edits }] : null),
  explain: (s) =>
    numbersShown() && channelNow() !== null && !isParameter(tensorNow())
      ? ["explain", { text: s.text, name: tensorNow(), index: [...data.numbers.row, channelNow()], ...aim(), edits: s.edits }]
      : null,
  code: () => (numbersShown() ? ["code", { name: tensorNow() }] : null),
};

/** The target of the backward pass: the text's own next tokens, or one token at one position. */
function aim() {
  if (state.view !== "backward" || state.target === "text") return { position: null, token: null };
  return { position: positionNow(), token: state.token };
}

/** The chosen number of the row that is shown; null: none. */
function channelNow() {
  const { numbers } = data;
  if (state.channel === null || !numbers || numbers.name !== tensorNow()) return null;
  return state.channel < 0 ? numbers.largest[0] : Math.min(state.channel, numbers.values.length - 1);
}

function numbersShown() {
  return state.view === "forward" || state.view === "backward";
}

const known = {}; // item -> the key of what is there
const asking = {}; // item -> the key that is on its way

let frame = 0; // the frame in which all is drawn anew

/** Ask for what is needed and not there; draw once for all that comes before the next frame. */
function refresh() {
  askWanted();
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    render();
  });
}

/** Ask for what is needed and not there, one question an item at a time. */
function askWanted() {
  for (const [item, want] of Object.entries(WANTED)) {
    if (item !== "picture" && (!data.picture || data.pictureText !== state.text)) continue;
    const wanted = want(state);
    if (!wanted) {
      data[item] = null;
      known[item] = null;
      delete failed[item];
      continue;
    }
    const version = item === "code" ? 0 : data.version;
    const key = JSON.stringify([...wanted, version]);
    if (known[item] === key || asking[item]) continue;
    ask1(item, wanted, key);
  }
}

async function ask1(item, [name, args], key) {
  asking[item] = key;
  const text = args.text;
  try {
    data[item] = await ask(name, args);
    delete failed[item];
    if (item === "picture") data.pictureText = text;
    if (item === "explain") announce(`${args.name}[${args.index.join(", ")}] = ${shown(data.explain.stored)}: ${data.explain.formula}`);
  } catch (error) {
    failed[item] = error.message;
  }
  asking[item] = null;
  known[item] = key;
  if (item === "picture" && !failed.picture) settle();
  if (item === "picture" && asking.position) askWanted(); // both are drawn at once
  else refresh();
}
