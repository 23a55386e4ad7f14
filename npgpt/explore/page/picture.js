"use strict";
// The tokens, and the model as rows: the embedding, each block, what comes out.

let hovered = null; // the token under the pointer or the focus, and what is said of it

function hoverToken(t, words = "") {
  hovered = t;
  byId("readout").textContent = t === null ? "" : words;
  shadeTokens();
}

function tokenName(t) {
  return `“${data.picture.tokens[t].label}”`;
}

function sayToken(t) {
  return `position ${t}, ${tokenName(t)}`;
}

// The tokens.

function renderTokens() {
  const list = byId("tokens"), p = positionNow();
  if (unchanged(list, data.picture, state.view === "backward" && data.backward, p)) return shadeTokens();
  const chips = data.picture.tokens.map((token, t) =>
    el("button", {
      type: "button", role: "option", class: "token", "data-key": `token ${t}`, "data-token": t,
      tabindex: t === p ? 0 : -1, "aria-selected": String(t === p),
      "aria-label": `${token.label}, position ${t}${shareWords(t)}`,
      on: {
        click: () => set({ p: t, row: null }),
        pointerenter: () => hoverToken(t, looksWords(t)),
        pointerleave: () => hoverToken(null),
        focus: () => hoverToken(t, looksWords(t)),
        blur: () => hoverToken(null),
        keydown: moveAlong,
      },
    }, el("span", { text: token.label }), el("small", { text: shareShort(t) })),
  );
  fill(list, ...chips);
  shadeTokens();
}

function moveAlong(event) {
  const T = data.picture.tokens.length, p = positionNow();
  const to = { ArrowLeft: p - 1, ArrowRight: p + 1, Home: 0, End: T - 1 }[event.key];
  if (to === undefined || to < 0 || to >= T) return;
  event.preventDefault();
  byId("tokens").children[to].focus();
  set({ p: to, row: null });
}

/** The attention that is shown: of the chosen head, or of all heads of the block on average. */
function attentionNow() {
  if (state.block === null) return null;
  const att = part(data.picture.att, state.block);
  if (state.head !== null) return part(att, state.head);
  const [NH, T] = att.shape;
  const mean = new Float32Array(T * T);
  for (let h = 0; h < NH; h++) for (let i = 0; i < T * T; i++) mean[i] += att[h * T * T + i] / NH;
  mean.shape = [T, T];
  return mean;
}

function headName() {
  return state.head === null ? `block ${state.block}, its heads on average` : `block ${state.block}, head ${state.head}`;
}

/** What a token looks at most, in words. */
function looksWords(t) {
  const row = part(attentionNow(), t);
  const order = [...row.keys()].filter((u) => u <= t).sort((a, b) => row[b] - row[a]).slice(0, 3);
  return `${sayToken(t)} looks at ${order.map((u) => `${tokenName(u)} ${percent(row[u])}`).join(", ")} (${headName()})`;
}

function shadeTokens() {
  if (!data.picture) return;
  const chips = byId("tokens").children;
  const backward = state.view === "backward" && data.backward;
  const t = hovered ?? positionNow();
  const row = backward ? data.backward.tokens : part(attentionNow(), Math.min(t, data.picture.tokens.length - 1));
  const most = backward ? largest(row) : 1;
  for (const [u, chip] of [...chips].entries()) {
    chip.style.setProperty("--shade", css(sequential(Math.sqrt((row[u] || 0) / most) * 0.36)));
    chip.classList.toggle("looking", u === t && !backward);
  }
}

function shareWords(t) {
  return state.view === "backward" && data.backward ? `, ${percent(data.backward.tokens[t])} of the gradient` : "";
}

function shareShort(t) {
  return state.view === "backward" && data.backward ? percent(data.backward.tokens[t]) : "";
}

// The rows.

function renderPicture() {
  const { n_layer: L, n_head: NH } = data.model.config;
  const backward = state.view === "backward";
  const place = byId("rows");
  place.classList.toggle("stale", Boolean(failed.picture) || data.pictureText !== state.text);
  const { view, block, head, pattern, edits } = state;
  if (unchanged(place, data.picture, data.position, backward && data.backward, positionNow(), view, block, head, pattern, edits, palette.cell)) return;
  const rows = [embeddingRow()];
  const scales = { ...rowScales(), marks: markedHeads() };
  for (let i = 0; i < L; i++) rows.push(blockRow(i, NH, scales));
  rows.push(outRow());
  place.style.setProperty("--heads", NH);
  fill(place, ...rows);
  byId("pattern-label").hidden = backward;
  byId("pattern-found").hidden = backward;
  renderPattern();
  renderEdits();
  byId("legend").textContent = backward
    ? "Gradients flow from the bottom to the top. Strips: the norm of the gradient at each token, darker where it is larger, on a logarithmic scale. Squares: the gradient of each attention weight, blue where the loss rises with the weight, orange where it falls."
    : "Data flows from the top to the bottom. Strips: norms at each token, darker where they are larger, on a logarithmic scale. Squares: each head's attention, a row a token, a column a token that it looks at.";
}

function rowScales() {
  const p = data.picture;
  if (state.view === "backward" && data.backward) return { flow: logScale(data.backward.norms), datt: largest(data.backward.datt) };
  return { stream: logScale(p.norms), attention: logScale(p.attention_norms), mlp: logScale(p.mlp_norms) };
}

function embeddingRow() {
  const backward = state.view === "backward" && data.backward;
  const values = part(backward ? data.backward.norms : data.picture.norms, 0);
  const scale = backward ? rowScales().flow : rowScales().stream;
  return el("div", { class: "row plain" },
    el("span", { class: "row-name", text: "Embedding" }),
    el("div", { class: "strips" }, strip("embedding", backward ? "gradient" : "stream", values, scale, sayToken)),
    el("span"),
    backward ? el("span") : lensCell(0),
  );
}

function blockRow(i, NH, scales) {
  const backward = state.view === "backward" && data.backward;
  const chosen = state.block === i;
  const name = el("button", {
    class: "row-name", type: "button", "data-key": `block ${i}`, "aria-pressed": String(chosen && state.head === null),
    on: { click: () => set({ block: i, head: null }) },
  }, `Block ${i}`);
  const strips = el("div", { class: "strips" });
  if (backward) {
    strips.append(strip(i, "attention", part(data.backward.norms, 2 * i + 1), scales.flow, sayToken));
    strips.append(strip(i, "MLP", part(data.backward.norms, 2 * i + 2), scales.flow, sayToken));
  } else {
    strips.append(strip(i, "attention", part(data.picture.attention_norms, i), scales.attention, sayToken));
    strips.append(strip(i, "MLP", part(data.picture.mlp_norms, i), scales.mlp, sayToken));
    strips.append(strip(i, "stream", part(data.picture.norms, 2 * i + 2), scales.stream, sayToken));
  }
  const heads = el("div", { class: "heads", role: "group", "aria-label": `Heads of block ${i}` });
  for (let h = 0; h < NH; h++) heads.append(headButton(i, h, scales));
  const last = backward ? shareCell(i) : lensCell(2 * i + 2);
  return el("div", { class: `row${chosen ? " chosen" : ""}` }, name, strips, heads, last);
}

function headButton(i, h, scales) {
  const backward = state.view === "backward" && data.backward;
  const off = isOff("head", i, h);
  const canvas = headCanvas(backward ? data.backward : data.picture, i, h, scales);
  const score = headScore(i, h);
  const words = [`Block ${i}, head ${h}`, off && "switched off", score !== null && `score ${percent(score)}`];
  return el("button", {
    type: "button", class: `head${off ? " off" : ""}${scales.marks.includes(`${i} ${h}`) ? " marked" : ""}`,
    "data-key": `head ${i} ${h}`, title: `head ${h}${score === null ? "" : `: ${percent(score)}`}`,
    "aria-label": words.filter(Boolean).join(", "),
    "aria-pressed": String(state.block === i && state.head === h),
    tabindex: (state.block === i && (state.head ?? 0) === h) || (state.block !== i && h === 0) ? 0 : -1,
    on: {
      click: () => set({ block: i, head: h, ...(state.view === "forward" ? { tensor: "att", channel: null } : {}) }),
      keydown: (event) => moveHead(event, i, h),
    },
  }, canvas);
}

/** The canvas of a head, painted where the picture or the colours are other ones. */
function headCanvas(picture, i, h, scales) {
  const canvas = canvasOf(`head ${i} ${h}`);
  if (unchanged(canvas, picture, palette.cell)) return canvas;
  if (picture.datt) paintGradient(canvas, part(picture.datt, i, h), scales.datt);
  else paintAttention(canvas, part(picture.att, i, h));
  return canvas;
}

function moveHead(event, i, h) {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step) return;
  const { n_layer: L, n_head: NH } = data.model.config;
  const [block, head] = [i + step[0], h + step[1]];
  if (block < 0 || block >= L || head < 0 || head >= NH) return;
  event.preventDefault();
  set({ block, head });
  document.querySelector(`[data-key="head ${block} ${head}"]`).focus();
}

function headScore(i, h) {
  const scores = state.pattern && state.view !== "backward" ? data.picture.patterns[state.pattern] : null;
  return scores ? scores[i * data.model.config.n_head + h] : null;
}

/** The three heads that fit the pattern best, as "block head". */
function markedHeads() {
  const { n_layer: L, n_head: NH } = data.model.config;
  if (!state.pattern || headScore(0, 0) === null) return [];
  const all = [...Array(L * NH).keys()].sort((a, b) => data.picture.patterns[state.pattern][b] - data.picture.patterns[state.pattern][a]);
  return all.slice(0, 3).map((n) => `${Math.floor(n / NH)} ${n % NH}`);
}

function renderPattern() {
  const place = byId("pattern-found");
  if (byId("pattern").value !== state.pattern) byId("pattern").value = state.pattern;
  if (!state.pattern) return place.replaceChildren();
  const marks = markedHeads();
  if (!marks.length) return fill(place, el("span", { text: "No token of this text has what it takes: repeat a word, or write more." }));
  const found = marks.map((mark, n) => {
    const [i, h] = mark.split(" ").map(Number);
    return el("button", { type: "button", "data-key": `found ${n}`, on: { click: () => set({ block: i, head: h, tensor: "att", channel: null }) } },
      `block ${i}, head ${h}: ${percent(headScore(i, h))}`);
  });
  fill(place, el("span", { text: "On average over the text, these do so most: " }), ...found);
}

/** What would be said after this place of the residual stream. */
function lensCell(place) {
  const lens = data.position && data.position.lens[place];
  if (!lens) return el("span", { class: "lens" });
  const [best] = lens.top;
  return el("span", { class: "lens", title: lens.top.map((t) => `${t.label} ${percent(t.prob)}`).join("\n") },
    el("span", { class: "lens-token", text: best.label }), el("small", { text: percent(best.prob) }));
}

function shareCell(i) {
  const share = data.backward.blocks[i];
  return el("span", { class: "lens share", title: "share of the gradient of all blocks' parameters" },
    el("span", { class: "bar", style: { "--size": share } }), el("small", { text: percent(share) }));
}

function outRow() {
  const p = positionNow();
  const backward = state.view === "backward" && data.backward;
  const words = backward
    ? `loss ${shown(data.backward.loss)}, gradient of norm ${shown(data.backward.norm)}`
    : data.picture.loss === null ? "write more for a loss" : `mean loss of the next tokens ${shown(data.picture.loss)}`;
  return el("div", { class: "row plain out" },
    el("span", { class: "row-name", text: "Output" }),
    el("span", { id: "loss-now", text: words }),
    backward || !data.position ? el("span") : el("span", { class: "lens-note", text: `↑ after ${tokenName(p)}` }),
  );
}
