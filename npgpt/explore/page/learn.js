"use strict";
// The panel of learning: steps, the loss, what has moved, and back.

const ALL = 0; // steps without an end

/** What is shown, to be compared with what comes; first: the number of the first loss to come. */
function shownNow(first) {
  return { picture: data.picture, position: data.position, of: textNow(), first };
}

/** The text and its edits, to see whether two pictures are of the same. */
function textNow() {
  return JSON.stringify([state.text, state.edits]);
}

/** Begin steps, and follow them: the picture and the numbers move along. */
async function learn(steps) {
  await follow(data.progress.losses.length, () =>
    ask("learn", { steps: steps === ALL ? null : steps, lr: 10 ** rateNow(), text: byTask() ? null : state.text }));
}

async function undo() {
  await follow(null, async () => {
    await ask("undo");
    data.progress = { ...data.progress, losses: [], updates: 0 }; // all is asked for again
    data.version += 1;
  });
}

/** Begin something that changes the weights, and follow it to its end; first: see shownNow. */
async function follow(first, begin = () => {}) {
  if (data.learning) return;
  data.learning = true;
  data.before = shownNow(first);
  delete failed.learn;
  render();
  try {
    await begin();
    await followStatus();
  } catch (error) {
    failed.learn = error.message;
  }
  data.learning = false;
  say("");
  const { losses } = data.progress;
  announce(failed.learn || divergence() || stepsWords() + (losses.length ? ` The last loss: ${shown(losses.at(-1))}.` : ""));
  refresh();
}

async function followStatus() {
  let running = true;
  while (running) {
    const status = await machineStatus();
    running = status.running;
    if (status.failed) failed.learn = status.failed;
    announce(status.doing.split(":")[0]);
    say(status.doing + (status.speed ? `, ${status.speed >= 10 ? Math.round(status.speed) : status.speed.toFixed(1)} a second` : ""));
    await news();
    if (running) await new Promise((done) => setTimeout(done, 120));
  }
}

/** The losses that came; where the weights have changed, everything is asked for again. */
async function news() {
  const have = data.progress.losses.length;
  const progress = await ask("progress", { since: have });
  if (progress.since) progress.losses = [...data.progress.losses, ...progress.losses];
  const moved = progress.updates !== data.progress.updates || progress.losses.length !== have;
  data.progress = progress;
  if (moved) data.version += 1;
  refresh();
}

/** A page that was saved has the steps that were taken then: show the model after some of them. */
async function showFrame(n) {
  data.frame = 0;
  data.before = null;
  if (n) {
    state.edits = [];
    const [picture, position] = await Promise.all(["picture", "position"].map((item) => ask(...WANTED[item](state))));
    data.before = { ...shownNow(0), picture, position };
    data.frame = n;
  }
  data.version += 1;
  set({});
}

/** What stands in the place of the buttons on a page that was saved. */
function savedSteps(place) {
  const steps = (n) => saved.frames[n].steps;
  place.append(
    el("p", { text: `Steps on this text were taken when the page was saved, at a learning rate of ${rateWords(saved.lr)}. Show the model` }),
    el("p", { class: "choices" }, ...saved.frames.map((_, n) =>
      toggle(`frame ${n}`, n ? `after ${counted(steps(n), "step")}` : "before them", n === data.frame, () => showFrame(n)))));
  if (data.frame) place.append(...lossCurve(saved.losses.slice(0, steps(data.frame))));
  return place;
}

/** The curve of losses, and its ends in words. */
function lossCurve(losses) {
  if (losses.every((loss) => loss === null)) return [];
  if (losses.length === 1) return [el("p", { class: "hint", text: `The loss of this step: ${shown(losses[0])}.` })];
  const words = `The loss of each step, from ${shown(losses[0])} to ${shown(losses.at(-1))}`;
  return [el("figure", {}, curve(losses, { label: words }), el("figcaption", { text: `${words}.` }))];
}

function renderLearn() {
  const place = section("steps", "Training");
  const task = data.model.task;
  if (saved) return [savedSteps(place)];
  const { losses, actions } = data.progress;
  const busy = Boolean(data.learning);
  const button = (text, key, action, disabled) => el("button", { type: "button", text, "data-key": key, disabled, on: { click: action } });
  if (task) {
    place.append(el("p", { class: "choices" }, el("span", { text: "It learns from " }),
      toggle("batches", task === "addition" ? "sums" : "the text's characters", byTask(), () => set({ from: "task" })),
      toggle("this-text", "the text above alone", !byTask(), () => set({ from: "text" }))));
  }
  place.append(el("p", { class: "buttons" },
    ...[1, 10, 100].map((n) => button(n === 1 ? "1 step" : `${n} steps`, `steps ${n}`, () => learn(n), busy)),
    task ? button("Train", "train", () => learn(ALL), busy) : null,
    button("Stop", "stop", () => ask("stop"), !busy),
    button("Undo", "undo", undo, busy || !actions.length)));
  place.append(slider("lr", "Learning rate", rateNow(), { min: -6, max: 0.5, step: 0.1, say: (v) => rateWords(10 ** v), change: (v) => { state.lr = v; writeAddress(); } }));
  if (failed.learn) place.append(el("p", { class: "failed", text: failed.learn }));
  place.append(el("p", { id: "updates", text: stepsWords() }), ...lossCurve(losses));
  const words = divergence();
  if (words) place.append(el("p", { class: "failed", id: "diverged", text: words }));
  return [place];
}

function rateWords(lr) {
  return String(Number(lr.toPrecision(2)));
}

function stepsWords() {
  const { updates } = data.progress;
  return updates ? `${counted(updates, "step")} taken.` : "No step was taken yet.";
}

/** The decimal logarithm of the learning rate: the chosen one, or the model's own. */
function rateNow() {
  return state.lr ?? Math.log10(data.model.rates[byTask() ? "task" : "text"]);
}

function toggle(key, text, pressed, action) {
  return el("button", { type: "button", "data-key": key, "aria-pressed": String(pressed), text, on: { click: action } });
}

function byTask() {
  return state.from === "task" && Boolean(data.model.task);
}

function divergence() {
  const { losses, diverged } = data.progress;
  if (diverged) return "The loss is NaN or infinite, and so are the weights: the learning rate was too high for them. Undo brings them back.";
  const first = losses[data.before?.first ?? 0], now = losses.at(-1);
  const count = losses.length - (data.before?.first ?? 0);
  if (count >= 3 && now > 1.2 * first + 0.2) return `The loss has risen from ${shown(first)} to ${shown(now)}: each step overshoots, the learning rate is too high. Undo, and take a lower one.`;
  return "";
}

/** Before and after the last steps: the distribution, the heads and the norms. */
function whatMoved() {
  const place = section("moved", "What it has changed");
  const was = data.before;
  if (!was?.picture || !data.position || was.picture === data.picture || was.of !== textNow()) {
    place.append(el("p", { class: "hint", text: "Take a step: then the next token, attention and norms are compared with those before it." }));
    return place;
  }
  if (data.picture.loss !== null && was.picture.loss !== null) {
    place.append(el("p", {}, "The loss of this text: ", el("b", { id: "loss-moved", text: `${shown(was.picture.loss)} → ${shown(data.picture.loss)}` }), "."));
  }
  const { n_layer: L, n_head: NH } = data.model.config;
  if (was.position && was.position.position === data.position.position) {
    place.append(el("h4", { text: `What comes after ${tokenName(positionNow())}` }), distribution(was.position));
  }
  const moved = [];
  for (let i = 0; i < L; i++) {
    for (let h = 0; h < NH; h++) {
      const a = part(data.picture.att, i, h), b = part(was.picture.att, i, h);
      let most = 0;
      for (let n = 0; n < a.length; n++) most = Math.max(most, Math.abs(a[n] - b[n]));
      moved.push([i, h, most]);
    }
  }
  moved.sort((a, b) => b[2] - a[2]);
  place.append(el("h4", { text: "Heads whose attention moved most, by the largest change of a weight" }), el("ul", { class: "bars wide-names" }, ...moved.slice(0, 4).map(([i, h, most]) =>
    barRow({ name: `block ${i}, head ${h}`, value: most, text: percent(most), action: () => set({ block: i, head: h }), pressed: state.block === i && state.head === h, key: `moved-head ${i} ${h}` }))));
  const T = data.picture.tokens.length, mean = (norms, place) => part(norms, place).reduce((a, b) => a + b, 0) / T;
  place.append(el("h4", { text: "Norm of the stream after each block, on average" }), el("ul", { class: "bars plain-bars" }, ...[...Array(L).keys()].map((i) =>
    el("li", { class: "bar-row" }, el("span", { class: "bar-name", text: `block ${i}` }), el("span", { class: "wide", text: `${shown(mean(was.picture.norms, 2 * i + 2))} → ${shown(mean(data.picture.norms, 2 * i + 2))}` })))));
  return place;
}
