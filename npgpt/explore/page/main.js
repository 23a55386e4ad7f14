"use strict";
// The start, the buttons that are always there, and what is drawn when.

let dragging = false; // a slider is held: its panel stays as it is

const PANELS = { forward: renderForward, backward: renderBackward, learn: renderLearn, edit: renderEdit };

function render() {
  renderModel();
  renderProblem();
  for (const tab of byId("views").children) {
    const chosen = tab.dataset.view === state.view;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
  }
  byId("panel").setAttribute("aria-labelledby", `tab-${state.view}`);
  if (!data.picture) return;
  renderTokens();
  renderPicture();
  if (dragging) return;
  fill(byId("panel"), ...PANELS[state.view]());
  renderBelow();
}

function renderProblem() {
  const words = failed.picture || data.notice, problem = byId("problem");
  problem.hidden = !words;
  if (problem.textContent !== words) problem.textContent = words;
}

function fileName(path) {
  return path.split(/[\\/]/).pop();
}

function renderModel() {
  const m = data.model, c = m.config;
  const name = NAMES[m.name] || fileName(m.name);
  for (const button of document.querySelectorAll("[data-model]")) {
    const chosen = button.dataset.model === (BUNDLED.includes(m.name) || m.name === "characters" ? m.name : "given");
    button.setAttribute("aria-pressed", String(chosen));
  }
  byId("model").textContent = `${name}: ${counted(c.n_layer, "block")}, ${counted(c.n_head, "head")}, ${counted(c.n_embd, "channel")}, ${counted(m.parameters, "parameter")}`;
  byId("model").title = `vocabulary ${c.vocab_size.toLocaleString("en")}, tokenizer ${m.tokenizer}; a step of training takes ${m.memory} of memory`;
}

const NAMES = { addition: "A new model that learns to add", characters: "A new model that learns a text", tiny: "The bundled tiny model" };

async function openModel(name, text) {
  try {
    takeModel(await ask("open", text === undefined ? { model: name } : { model: name, text }));
    Object.assign(state, DEFAULTS, { view: state.view, text: data.model.prompt });
    byId("your-text").hidden = true;
    await start();
  } catch (error) {
    notice(error.message);
  }
}

function notice(words) {
  data.notice = words;
  renderProblem();
}

/** Open the model that the address names, where nothing is lost by that. */
async function openLinked() {
  const { model } = state;
  if (!saved && model !== null && model !== data.model.name) {
    if (data.progress.updates) notice(`This link is of another model, “${NAMES[model]}”. It is not opened: the steps that were taken here would be lost.`);
    else takeModel(await ask("open", { model }));
  }
  state.model = BUNDLED.includes(data.model.name) ? data.model.name : null;
}

function takeModel(model) {
  data.model = model;
  data.progress = model;
  data.version += 1;
  data.picture = data.position = data.before = data.check = null;
  const given = document.querySelector("[data-model=given]");
  given.hidden = !model.given;
  given.textContent = model.given ? fileName(model.given) : "";
  byId("watch").hidden = Boolean(saved) || !model.task;
  data.notice = "";
  delete failed.learn;
}

const QUESTIONS = {
  previous: () => set({ view: "forward", pattern: "previous" }),
  adds: () => set({ view: "forward", block: Math.min(5, data.model.config.n_layer - 1), head: null, p: null }),
  likely: () => set({ view: "forward", token: null }),
  learn: () => {
    set({ view: "learn", from: "task" });
    learn(ALL);
  },
  step: async () => {
    set({ view: "learn" });
    await (saved ? showFrame(1) : learn(1));
  },
  bias: () => {
    set({ view: "backward", tensor: "dfcb", row: null, channel: LARGEST });
  },
};
const ANSWERS = { learn: "#steps", previous: "#pattern-found", adds: "#adds", likely: "#why", step: "#moved", bias: "#below" };

function listen() {
  byId("text").addEventListener("input", (event) => set({ text: event.target.value, p: null, token: null, row: null }));
  byId("pattern").addEventListener("change", (event) => set({ pattern: event.target.value }));
  for (const tab of byId("views").children) {
    tab.addEventListener("click", () => set({ view: tab.dataset.view }));
    tab.addEventListener("keydown", (event) => {
      const tabs = [...byId("views").children], at = tabs.indexOf(tab);
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = tabs[(to + tabs.length) % tabs.length];
      set({ view: next.dataset.view });
      next.focus();
    });
  }
  for (const button of document.querySelectorAll("[data-question]")) {
    button.addEventListener("click", async () => {
      const name = button.dataset.question;
      await QUESTIONS[name]();
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      document.querySelector(ANSWERS[name])?.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
    });
  }
  for (const button of document.querySelectorAll("[data-model]")) {
    button.addEventListener("click", () => {
      if (button.dataset.model !== "characters") return openModel(button.dataset.model);
      const form = byId("your-text");
      form.hidden = !form.hidden;
      button.setAttribute("aria-expanded", String(!form.hidden));
      if (!form.hidden) byId("corpus").focus();
    });
  }
  byId("your-text").addEventListener("submit", (event) => {
    event.preventDefault();
    openModel("characters", byId("corpus").value);
  });
  byId("copy-link").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(address());
      byId("copied").textContent = "copied";
    } catch {
      byId("copied").textContent = "The address of this page is the link.";
    }
  });
  document.addEventListener("pointerdown", (event) => { dragging = event.target.type === "range"; });
  document.addEventListener("pointerup", () => {
    if (dragging) {
      dragging = false;
      render();
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readPalette();
    render();
  });
  addEventListener("hashchange", () => {
    readAddress();
    start();
  });
}

async function start() {
  await openLinked();
  if (state.text === null) state.text = data.model.prompt;
  byId("text").value = state.text;
  settle();
  refresh();
}

async function begin() {
  readPalette();
  readAddress();
  const stored = byId("saved");
  if (stored) saved = parsed(stored.textContent);
  try {
    takeModel(await ask("describe"));
  } catch (error) {
    return notice(error.message);
  }
  if (saved) {
    state.text = data.model.prompt;
    byId("text").readOnly = true;
    byId("about").textContent = "Every number of this page was computed by npgpt. With the program, npgpt explore, any text and any number can be looked at.";
  }
  byId("models").hidden = Boolean(saved);
  listen();
  await start();
  say("");
  if (!saved && (await machineStatus()).running) await follow(data.progress.losses.length);
}

begin();
