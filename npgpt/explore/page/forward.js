"use strict";
// The panel of the forward pass: the next token, why it is likely, what a head looks at, what a block adds.

/** The probabilities of tokens by their logits at a temperature, cut to the k likeliest and to top-p. */
function probabilities(logits, temperature, k, topP) {
  const V = logits.length;
  const high = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  let weights = Float64Array.from(logits, (x) => Math.exp((x - high) / temperature));
  if ((k > 0 && k < V) || topP < 1) {
    const order = [...weights.keys()].sort((a, b) => logits[b] - logits[a] || a - b);
    const kept = new Float64Array(V);
    const count = k > 0 ? Math.min(k, V) : V;
    let total = 0, before = 0;
    for (let i = 0; i < count; i++) total += weights[order[i]];
    for (let i = 0; i < count && (topP >= 1 || before < topP * total); i++) {
      kept[order[i]] = weights[order[i]];
      before += weights[order[i]];
    }
    weights = kept;
  }
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / sum);
}

const BARS = 12;

function slider(id, label, value, { min, max, step, say, change }) {
  const out = el("output", { for: id, text: say(value) });
  const input = el("input", { type: "range", id, min, max, step, value, "data-key": id, "aria-valuetext": say(value) });
  input.addEventListener("input", () => {
    const now = Number(input.value);
    out.textContent = say(now);
    input.setAttribute("aria-valuetext", say(now));
    change(now);
  });
  return el("div", { class: "slider" }, el("label", { for: id, text: label }), input, out);
}

function renderForward() {
  return [nextToken(), why(), state.head === null ? blockAdds() : headLooks()];
}

function nextToken() {
  const place = section("next", `What comes after ${tokenName(positionNow())}`);
  if (!data.position) return waitFor(place, "position");
  const bars = el("div", {}, distribution());
  const change = (name) => (value) => {
    state[name] = value;
    writeAddress();
    fill(bars, distribution());
  };
  const all = (v, text) => (v ? text : "all");
  place.append(
    bars,
    slider("temperature", "Temperature", state.temperature, { min: 0.1, max: 3, step: 0.05, say: (v) => v.toFixed(2), change: change("temperature") }),
    slider("top-k", "Top-k", state.k, { min: 0, max: Math.min(50, data.model.config.vocab_size), step: 1, say: (v) => all(v > 0, v), change: change("k") }),
    slider("top-p", "Top-p", state.top, { min: 0.05, max: 1, step: 0.05, say: (v) => all(v < 1, v.toFixed(2)), change: change("top") }),
  );
  return place;
}

/** The likeliest tokens as bars; with another picture's logits, where they were. */
function distribution(before = null) {
  const p = probabilities(data.position.logits, state.temperature, state.k, state.top);
  const was = before && probabilities(before.logits, state.temperature, state.k, state.top);
  let tokens = data.position.top;
  if (before) {
    const ids = new Set(tokens.map((t) => t.id));
    tokens = [...tokens.slice(0, BARS - 2), ...before.top.slice(0, 4).filter((t) => !tokens.slice(0, BARS - 2).some((o) => o.id === t.id))];
  }
  const shownTokens = tokens.slice(0, BARS);
  const list = el("ol", { class: `bars${before ? " compared" : ""}`, "aria-label": "Probabilities of the next token" });
  let rest = 1, restWas = 1;
  for (const token of shownTokens) {
    const prob = p[token.id];
    rest -= prob;
    if (was) restWas -= was[token.id];
    list.append(barRow({
      name: token.label, value: prob, muted: prob === 0,
      text: was ? `${percent(was[token.id])} → ${percent(prob)}` : percent(prob),
      before: was ? was[token.id] : undefined,
      action: () => set({ token: token.id }), pressed: data.position.token.id === token.id, key: `next ${token.id}`,
    }));
  }
  const others = p.length - shownTokens.length;
  if (others > 0) {
    const now = percent(Math.max(0, rest));
    list.append(barRow({ name: `${counted(others, "other")}`, value: Math.max(0, rest), text: was ? `${percent(Math.max(0, restWas))} → ${now}` : now, muted: true }));
  }
  return list;
}

function why() {
  const place = section("why", data.position ? `Why “${data.position.token.label}”?` : "Why?");
  if (!data.position) return waitFor(place, "position");
  const { by, heads, logit } = data.position.parts;
  place.append(el("p", {}, "Its logit is the sum of what each part of the model adds: ",
    el("b", { id: "logit", text: shown(logit) }), ". Choose another token above."));
  const most = largest(Object.values(by).map((v) => v || 0));
  const list = el("ul", { class: "bars signed-bars", "aria-label": "What adds to the logit" });
  for (const [name, value] of Object.entries(by)) {
    const [what, i] = name.split(" ");
    const action = what === "attention" || what === "mlp" ? () => set({ block: Number(i), head: what === "attention" ? bestHead(heads, Number(i)) : null }) : null;
    list.append(signedRow(name.replace("mlp", "MLP"), value, most, action));
  }
  place.append(list, lensCurve());
  return place;
}

function bestHead(heads, i) {
  const row = [...part(heads, i)];
  return row.indexOf(Math.max(...row));
}

function lensCurve() {
  const probs = data.position.lens.map((l) => l.prob);
  const last = data.position.lens.at(-1);
  return el("figure", {},
    curve(probs, { label: `Probability of the token after each place of the model, from ${percent(probs[0])} to ${percent(probs.at(-1))}`, bottom: 0 }),
    el("figcaption", { text: `Its probability from the embedding to the end, by the logit lens; at the end it is number ${last.rank}.` }));
}

function blockAdds() {
  const place = section("adds", `What block ${state.block} adds`);
  if (!data.block) return waitFor(place, "block");
  const n = data.block.norms;
  place.append(el("p", {}, `At ${tokenName(positionNow())} the stream has the norm ${shown(n.before)}. The attention adds ${shown(n.attention)}, the MLP ${shown(n.mlp)}; then it is ${shown(n.after)}.`));
  for (const [title, moved] of [["Likelier after it", data.block.raised], ["Less likely after it", data.block.lowered]]) {
    place.append(el("h4", { text: title }), el("ul", { class: "bars compared" }, ...moved.map((t) =>
      barRow({ name: t.label, value: t.after, before: t.before, text: `${percent(t.before)} → ${percent(t.after)}`, action: () => set({ token: t.id }), pressed: data.position?.token.id === t.id, key: `moved ${title} ${t.id}` }))));
  }
  place.append(el("p", { class: "hint", text: "By the logit lens: the final layernorm and the head on the stream before and after the block. A square chooses a head." }));
  return place;
}

function headLooks() {
  const p = positionNow();
  const place = section("looks", `Block ${state.block}, head ${state.head}`);
  const att = part(data.picture.att, state.block, state.head), T = att.shape[0];
  const canvas = el("canvas", { class: "map", "aria-hidden": "true" });
  paintAttention(canvas, att);
  canvas.addEventListener("pointermove", (event) => {
    const u = cellAt(event, T), box = canvas.getBoundingClientRect();
    const t = Math.min(T - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * T)));
    hoverToken(t, u > t ? `${sayToken(t)} does not see the future` : `${sayToken(t)} looks at ${tokenName(u)}: ${percent(att[t * T + u])}`);
  });
  canvas.addEventListener("pointerleave", () => hoverToken(null));
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    const t = Math.min(T - 1, Math.floor(((event.clientY - box.top) / box.height) * T));
    set({ p: t, tensor: "att", channel: Math.min(t, cellAt(event, T)) });
  });
  const row = part(att, p);
  const order = [...row.keys()].filter((u) => u <= p).sort((a, b) => row[b] - row[a]).slice(0, 6);
  place.append(canvas, el("h4", { text: `What ${tokenName(p)} looks at` }), el("ul", { class: "bars" }, ...order.map((u) =>
    barRow({ name: `${u} ${tokenName(u)}`, value: row[u], text: percent(row[u]), action: () => set({ tensor: "att", channel: u }), pressed: state.tensor === "att" && state.channel === u, key: `looks ${u}` }))));
  const s = data.picture.patterns, at = state.block * data.model.config.n_head + state.head;
  const words = [["the previous token", s.previous], ["the first", s.first], ["the token itself", s.self], ["what followed this token before", s.induction]]
    .filter(([, scores]) => scores).map(([name, scores]) => `${name} ${percent(scores[at])}`);
  if (words.length) place.append(el("p", { class: "hint", text: `On average over the text it looks at: ${words.join(", ")}.` }));
  if (data.position) place.append(el("p", { text: `It adds ${shown(part(data.position.parts.heads, state.block)[state.head])} to the logit of “${data.position.token.label}”.` }));
  return place;
}

// What panels share.

function section(id, title) {
  return el("section", { id, "aria-labelledby": `${id}-title` }, el("h3", { id: `${id}-title`, text: title }));
}

function waitFor(place, item) {
  place.append(el("p", { class: failed[item] ? "failed" : "hint", text: failed[item] || "…" }));
  return place;
}
