"use strict";
// The panel of the backward pass: the target, and where the gradient goes.

function renderBackward() {
  const { backward } = data;
  const place = section("aim", "The target");
  const p = positionNow();
  const one = state.target === "one";
  place.append(
    choice("target", "text", "each next token of the text", !one),
    choice("target", "one", `one token after ${tokenName(p)}`, one),
  );
  if (one) place.append(targetForm());
  const shares = section("shares", "Where the gradient goes");
  if (!backward) return [place, waitFor(shares, "backward")];
  shares.append(
    el("p", {}, `The loss is ${shown(backward.loss)}. The gradient of all parameters has the norm ${shown(backward.norm)}.`),
    el("h4", { text: "Share of each token" }),
    tokenShares(backward),
    el("p", { class: "hint", text: "Of the norms of the gradients at the embeddings." }),
    el("h4", { text: "Share of each block" }),
    el("ul", { class: "bars" }, ...[...backward.blocks].map((share, i) =>
      barRow({ name: `block ${i}`, value: share, text: percent(share), action: () => set({ block: i, head: null }), pressed: state.block === i, key: `share ${i}` }))),
    el("p", { class: "hint", text: "Of the norms of the gradients of the blocks' parameters." }),
  );
  return [place, shares];
}

function choice(name, value, words, checked) {
  const input = el("input", { type: "radio", name, value, checked, "data-key": `${name} ${value}`, on: { change: () => set({ [name]: value }) } });
  return el("label", { class: "choice" }, input, words);
}

/** The chosen target: one of the likeliest tokens, or the first token of what is typed. */
function targetForm() {
  const now = data.position?.token;
  const input = el("input", { id: "target", type: "text", autocomplete: "off", placeholder: now ? now.label : "", "data-key": "target-text" });
  const problem = el("span", { class: "failed", role: "alert" });
  const form = el("form", {}, el("label", { for: "target", text: "Target" }), input, el("button", { type: "submit", text: "Take it" }), problem);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const found = await ask("find_token", { text: input.value });
      set({ token: found.id });
    } catch (error) {
      problem.textContent = error.message;
    }
  });
  const likely = data.position ? data.position.top.slice(0, 8) : [];
  return el("div", {}, el("p", {}, "It is ", el("b", { id: "target-now", text: now ? `“${now.label}”` : "…" }), "."),
    el("p", { class: "choices" }, ...likely.map((t) => el("button", { type: "button", "data-key": `aim ${t.id}`, "aria-pressed": String(now?.id === t.id), text: t.label, on: { click: () => set({ token: t.id }) } }))), form);
}

function tokenShares(backward) {
  const order = [...backward.tokens.keys()].sort((a, b) => backward.tokens[b] - backward.tokens[a]).slice(0, 8);
  const most = largest(backward.tokens);
  return el("ul", { class: "bars" }, ...order.map((t) =>
    barRow({ name: `${t} ${tokenName(t)}`, value: backward.tokens[t] / most, text: percent(backward.tokens[t]), action: () => set({ p: t, row: null }), pressed: positionNow() === t, key: `token-share ${t}` })));
}
