"use strict";
// The numbers of a layer: a row of a tensor, how one was made, the lines that made it, its gradient check.

/** The tensors that a view offers: groups of names. */
function groups() {
  const i = state.block;
  if (state.view === "backward") {
    const of = (tensors) => Object.keys(tensors).filter((n) => !/_mean$|_rstd$/.test(n)).map((n) => `d${n}`);
    return {
      [`Gradients of the parameters of block ${i}`]: of(BLOCK_PARAMETERS), [`Gradients in block ${i}`]: of(IN_BLOCK),
      "Gradients of the head": ["dlosses", "dlogits", "dlnf", "dlnfw", "dlnfb"], "Gradients of the embedding": ["dencoded", "dwte", "dwpe"],
    };
  }
  return {
    Embedding: ["encoded"], [`Block ${i}`]: Object.keys(IN_BLOCK), Head: Object.keys(AFTER),
    [`Parameters of block ${i}`]: Object.keys(BLOCK_PARAMETERS), "Other parameters": Object.keys(OTHER_PARAMETERS),
  };
}

function baseNow() {
  const names = Object.values(groups()).flat();
  if (names.includes(state.tensor)) return state.tensor;
  const other = state.view === "backward" ? `d${state.tensor}` : (state.tensor || "").slice(1);
  return names.includes(other) ? other : state.view === "backward" ? "dfcb" : "residual3";
}

function tensorNow() {
  const base = baseNow(), plain = state.view === "backward" ? base.slice(1) : base;
  return plain in IN_BLOCK || plain in BLOCK_PARAMETERS ? `${base}.${state.block}` : base;
}

function isParameter(name) {
  const [base] = name.split(".");
  return base in BLOCK_PARAMETERS || base in OTHER_PARAMETERS;
}

/** The row of a tensor that is shown: the chosen position's; of a matrix a chosen one, or the largest's. */
function rowNow() {
  const base = baseNow(), plain = state.view === "backward" ? base.slice(1) : base;
  if (plain === "att" || plain === "preatt") return [state.head ?? 0, positionNow()];
  if (MATRICES.includes(plain)) return state.row;
  if (/_mean$|_rstd$|^losses$/.test(plain) || isParameter(plain)) return [];
  return [positionNow()];
}

function renderBelow() {
  const place = byId("below");
  const { view, block, head } = state;
  const same = unchanged(place, view, block, head, data.before, data.picture, data.position);
  if (view === "learn") return same ? undefined : fill(place, whatMoved());
  if (state.view === "edit") return fill(place, edited());
  const select = el("select", { id: "tensor", "data-key": "tensor", on: { change: (event) => set({ tensor: event.target.value, channel: null, row: null }) } },
    ...Object.entries(groups()).map(([label, names]) => el("optgroup", { label }, ...names.map((name) => el("option", { value: name, text: name, selected: name === baseNow() })))));
  fill(place,
    el("div", { class: "picture-head" }, el("h2", { id: "numbers-title", text: "Numbers and the code that made them" }), el("label", {}, "Tensor ", select)),
    el("div", { class: "two" }, rowOfNumbers(), codeShown()));
}

function rowOfNumbers() {
  const place = el("div", { id: "row-of-numbers" });
  const n = data.numbers;
  if (!n || n.name !== tensorNow()) return waitFor(place, "numbers");
  const where = n.row.length ? `[${n.row.join(", ")}, …]` : "";
  place.append(el("p", {}, el("code", { text: `${n.name}${where}` }), `: ${tensorWords(n.name)}. Shape (${n.shape.join(", ")}); here ${counted(n.values.length, "number")} of norm ${shown(n.norm)}.`));
  const most = largest(n.values), count = n.values.length, columns = Math.min(count, 64);
  const canvas = el("canvas", { class: "cells", "aria-hidden": "true", style: { "--rows": Math.ceil(count / columns) } });
  paint(canvas, Math.ceil(count / columns), columns, (r, c) => (r * columns + c < count ? diverging(n.values[r * columns + c] / most) : palette.line));
  const cell = (event) => {
    const box = canvas.getBoundingClientRect(), rows = canvas.height;
    const r = Math.min(rows - 1, Math.floor(((event.clientY - box.top) / box.height) * rows));
    return r * columns + cellAt(event, columns);
  };
  const readout = el("p", { class: "readout", "aria-hidden": "true", text: "Point at a cell to read it, click it for its formula." });
  canvas.addEventListener("pointermove", (event) => {
    const c = cell(event);
    if (c >= 0 && c < count) readout.textContent = `[${[...n.row, c].join(", ")}]${cellName(n, c)}: ${shown(n.values[c])}`;
  });
  canvas.addEventListener("click", (event) => cell(event) < count && set({ channel: cell(event) }));
  place.append(canvas, readout);
  const input = el("input", { id: "channel", type: "number", min: 0, max: count - 1, value: channelNow() ?? "", "data-key": "channel", on: { change: (event) => event.target.value !== "" && set({ channel: Math.min(count - 1, Math.max(0, Math.floor(Number(event.target.value)))) }) } });
  place.append(el("p", { class: "choices" }, el("span", { text: "Largest: " }), ...n.largest.slice(0, saved ? saved.explained : undefined).map((c) =>
    el("button", { type: "button", "data-key": `largest ${c}`, "aria-pressed": String(channelNow() === c), text: `${c}${cellName(n, c)}: ${shown(n.values[c])}`, on: { click: () => set({ channel: c }) } })),
    el("label", {}, "number ", input)));
  if (n.shape.length === 2 && MATRICES.includes(baseNow().replace(/^d/, ""))) {
    place.append(el("p", {}, el("label", {}, "Row ", el("input", { type: "number", id: "row", min: 0, max: n.shape[0] - 1, value: n.row[0], "data-key": "row", on: { change: (event) => set({ row: [Math.min(n.shape[0] - 1, Math.max(0, Math.floor(Number(event.target.value))))], channel: null }) } }))));
  }
  place.append(explanation(n));
  return place;
}

/** What a number belongs to, where that has a name: a token of the text or of the vocabulary. */
function cellName(n, c) {
  const base = n.name.split(".")[0].replace(/^d/, "");
  const T = data.picture.tokens.length;
  if (["att", "preatt", "ln1_mean", "ln1_rstd", "ln2_mean", "ln2_rstd", "lnf_mean", "lnf_rstd", "losses"].includes(base) && c < T) return ` ${tokenName(c)}`;
  if (base === "logits" || base === "probs") {
    const found = data.position?.top.find((t) => t.id === c);
    return found ? ` “${found.label}”` : "";
  }
  return "";
}

function explanation(n) {
  const place = el("div", { id: "explanation" });
  if (channelNow() === null) {
    place.append(el("p", { class: "hint", text: "Choose a number: how it was made comes here." }));
    return place;
  }
  if (isParameter(n.name)) {
    place.append(el("p", { text: `${n.name}[${[...n.row, channelNow()].join(", ")}] = ${shown(n.values[channelNow()])}: a parameter. It was read from the model, or learnt.` }));
    return place;
  }
  const e = data.explain;
  if (!e || e.name !== n.name || e.index.at(-1) !== channelNow()) return waitFor(place, "explain");
  place.append(
    el("p", { class: "result" }, el("code", { text: `${e.name}[${e.index.join(", ")}]` }), " = ", el("b", { id: "value", text: shown(e.stored) })),
    el("p", { class: "formula", text: e.formula }));
  const rows = [];
  const products = e.terms.some(([, , b]) => b !== 1);
  const row = (name, value, factors = ["", ""]) => [name, ...(products ? factors : []), shown(value)];
  for (const [name, value] of e.inputs) rows.push(row(name, value));
  for (const [name, a, b, product] of e.terms) rows.push(row(name, product, [`${shown(a)} ×`, shown(b)]));
  if (e.others.count) rows.push(row(`the other ${e.others.count.toLocaleString("en")}, added up`, e.others.sum));
  place.append(el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "What it was made from" }, el("table", {}, el("tbody", {}, ...rows.map((row) =>
    el("tr", {}, el("th", { scope: "row", text: row[0] }), ...row.slice(1).map((text) => el("td", { text }))))))));
  place.append(el("p", { class: "hint", text: e.edited ? `From the numbers before it, it would be ${shown(e.value)}: an edit lies between.` : `Computed again from these, in float64: ${shown(e.value)}.` }));
  return place;
}

function codeShown() {
  const place = el("div", { id: "code" });
  const code = data.code;
  if (!code) return waitFor(place, "code");
  place.append(el("p", {}, el("code", { text: code.file }), code.functions.some((f) => f.marked.length) ? ": the marked lines made it." : ": the layer that uses it."));
  for (const f of code.functions) {
    const lines = f.lines.map((words, i) => {
      const line = el("span", { class: `line${f.marked.includes(i) ? " marked" : ""}`, "data-line": f.first + i });
      for (const [kind, text] of words) line.append(kind ? el("span", { class: `word-${kind}`, text }) : text);
      line.append("\n");
      return line;
    });
    place.append(el("pre", { tabindex: 0, "aria-label": `${f.name}, from line ${f.first} on` }, el("code", {}, ...lines)));
  }
  place.append(checkShown());
  return place;
}

function verdict({ ok, layer }) {
  return ok ? `OK: ${layer}_backward agrees with central differences.` : `NOT OK: ${layer}_backward differs from central differences.`;
}

/** The gradient check of this layer on these numbers, when it was asked for. */
function checkShown() {
  const place = el("div", { id: "check" });
  const key = JSON.stringify([tensorNow(), state.text, aim(), state.edits, data.version]);
  const run = async () => {
    data.check = { key, waiting: true };
    render();
    try {
      data.check = { key, ...(await ask("check", { text: state.text, name: tensorNow(), ...aim(), edits: state.edits })) };
    } catch (error) {
      data.check = { key, error: error.message };
    }
    announce(data.check.error || verdict(data.check));
    render();
  };
  place.append(el("p", {}, el("button", { type: "button", "data-key": "check", text: "Check this layer's gradients on these numbers", disabled: data.check?.waiting, on: { click: run } })));
  const c = data.check;
  if (!c || c.key !== key) return place;
  if (c.waiting) place.append(el("p", { class: "hint", text: "moving each number up and down …" }));
  else if (c.error) place.append(el("p", { class: "failed", text: c.error }));
  else {
    place.append(
      el("p", { id: "verdict", text: verdict(c) }),
      el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "The check" }, el("table", {},
        el("thead", {}, el("tr", {}, ...["gradient", "shape", "moved", "largest error", "relative", ""].map((text) => el("th", { scope: "col", text })))),
        el("tbody", {}, ...c.rows.map((r) => el("tr", {}, el("th", { scope: "row", text: r.argument }), ...[`(${r.shape.join(", ")})`, `${r.moved} numbers`, shown(r.error), shown(r.relative), r.ok ? "OK" : `NOT OK ${r.note}`].map((text) => el("td", { text }))))))),
      el("p", { class: "hint", text: "In float64, by (f(x + ε) − f(x − ε)) / 2ε with ε = 1e-6; the gradient from above is scaled to 1 at its largest. Moved were the numbers with the largest gradients, and random ones." }));
  }
  return place;
}
