"use strict";
// The panel of edits: heads and MLPs switched off, activations from another text, and what that changes.

function sameEdit(a, b) {
  return JSON.stringify(a) === JSON.stringify(b);
}

function isOff(what, block, head) {
  const wanted = what === "head" ? { off: "head", block, head } : { off: "mlp", block };
  return state.edits.some((edit) => sameEdit(edit, wanted));
}

function switchEdit(edit) {
  const without = state.edits.filter((other) => !sameEdit(other, edit));
  const on = without.length === state.edits.length;
  if (saved) { // it has one edit at a time, of the model before the steps
    state.edits = on ? [edit] : [];
    showFrame(0);
  } else set({ edits: on ? [...without, edit] : without });
}

function editWords(edit) {
  if (edit.off === "head") return `block ${edit.block}, head ${edit.head} is off`;
  if (edit.off === "mlp") return `block ${edit.block}, MLP is off`;
  return `${tensorWords(edit.patch)} at position ${edit.position} is that of “${edit.text}” at ${edit.from}`;
}

/** In the other views: what is edited in the picture. */
function renderEdits() {
  const place = byId("edits-now");
  place.hidden = !state.edits.length || state.view === "edit";
  if (place.hidden) return;
  const steps = state.view === "learn" ? " Steps train the model without that." : "";
  fill(place, el("span", { text: `Edited: ${state.edits.map(editWords).join("; ")}.${steps}` }), removeAll("edits-now"));
}

function removeAll(key) {
  return el("button", { type: "button", text: "Remove all edits", "data-key": `remove all ${key}`, on: { click: () => set({ edits: [] }) } });
}

function renderEdit() {
  return saved ? [switches()] : [switches(), patchForm()]; // of other texts nothing is saved
}

function switches() {
  const place = section("switches", `Block ${state.block}: switch off`);
  const { n_head: NH } = data.model.config, i = state.block;
  const one = (edit, text, key) => el("button", { type: "button", role: "switch", class: "switch", "data-key": key, "aria-checked": String(!state.edits.some((e) => sameEdit(e, edit))), text, on: { click: () => switchEdit(edit) } });
  place.append(
    el("p", { class: "choices" }, ...[...Array(NH).keys()].map((h) => one({ off: "head", block: i, head: h }, `head ${h}`, `switch ${h}`))),
    el("p", { class: "choices" }, one({ off: "mlp", block: i }, "MLP", "switch mlp")),
    el("p", { class: "hint", text: `Another block: choose it in the picture.${saved ? " This page was saved with one thing off at a time, before the steps." : ""}` }),
  );
  return place;
}

const patch = { place: "residual3", text: "", from: "", problem: "" };

function patchForm() {
  const place = section("patch", "Replace by what another text has");
  const remember = (name) => ({ input: (event) => { patch[name] = event.target.value; } });
  const names = ["encoded", "attproj", "residual2", "fcproj", "residual3"];
  const select = el("select", { id: "patch-place", "data-key": "patch-place", on: remember("place") }, ...names.map((name) =>
    el("option", { value: name, selected: patch.place === name, text: tensorWords(name === "encoded" ? name : `${name}.${state.block}`) })));
  const form = el("form", {},
    el("label", { for: "patch-place", text: "Replace" }), select,
    el("p", { text: `at ${sayToken(positionNow())}, by that of` }),
    el("label", { for: "patch-text", text: "the text" }),
    el("input", { id: "patch-text", type: "text", value: patch.text, autocomplete: "off", "data-key": "patch-text", on: remember("text") }),
    el("label", { for: "patch-from", text: "at its position" }),
    el("input", { id: "patch-from", type: "number", min: 0, value: patch.from, placeholder: String(positionNow()), "data-key": "patch-from", on: remember("from") }),
    el("button", { type: "submit", text: "Replace it" }));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const from = patch.from === "" ? positionNow() : Number(patch.from);
    const name = patch.place === "encoded" ? "encoded" : `${patch.place}.${state.block}`;
    const edits = [...state.edits, { patch: name, position: positionNow(), text: patch.text, from }];
    try {
      await ask("position", { text: state.text, position: positionNow(), edits });
      patch.problem = "";
      set({ edits });
    } catch (error) {
      patch.problem = error.message;
      announce(patch.problem);
      render();
    }
  });
  place.append(form);
  if (patch.problem) place.append(el("p", { class: "failed", text: patch.problem }));
  return place;
}

function edited() {
  const place = section("edited", "What that changes");
  if (!state.edits.length) {
    place.append(el("p", { class: "hint", text: "Nothing is edited." }));
    return place;
  }
  place.append(
    el("ul", { class: "edits" }, ...state.edits.map((edit, n) =>
      el("li", {}, editWords(edit), " ", el("button", { type: "button", "data-key": `remove ${n}`, "aria-label": `undo: ${editWords(edit)}`, text: "×", on: { click: () => set({ edits: state.edits.filter((_, m) => m !== n) }) } })))),
    removeAll("edits"));
  const missing = ["picture", "position", "plain", "plainPosition"].find((item) => failed[item] || !data[item]);
  if (missing) return waitFor(place, missing);
  if (data.plain.loss !== null) place.append(el("p", {}, "The loss of this text: ", el("b", { id: "loss-edited", text: `${shown(data.plain.loss)} → ${shown(data.picture.loss)}` }), "."));
  place.append(el("h4", { text: `What comes after ${tokenName(positionNow())}` }), distribution(data.plainPosition));
  return place;
}
