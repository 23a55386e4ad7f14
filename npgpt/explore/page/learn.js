"use strict";
// The panel of learning: steps, the loss, what has moved, and back.

const ALL = 0; // steps without an end

/** Begin steps, and follow them: the picture and the numbers move along. */
async function learn(steps, onTask) {
  if (saved) return playSaved(steps);
  if (data.learning) return;
  data.before = { picture: data.picture, position: data.position, first: data.progress.losses.length };
  try {
    await ask("learn", { steps: steps === ALL ? null : steps, lr: 10 ** rateNow(), text: onTask ? null : state.text });
  } catch (error) {
    failed.learn = error.message;
    return render();
  }
  await follow();
}

async function undo() {
  if (saved) return playSaved(null);
  data.before = { picture: data.picture, position: data.position, first: null };
  data.progress = { ...data.progress, losses: [], updates: -1 }; // all is asked for again
  try {
    await ask("undo");
  } catch (error) {
    failed.learn = error.message;
    return render();
  }
  await follow();
}

async function follow() {
  delete failed.learn;
  data.learning = true;
  try {
    await followStatus();
  } catch (error) {
    failed.learn = error.message;
  }
  data.learning = false;
  say("");
  refresh();
}

async function followStatus() {
  let running = true;
  while (running) {
    const status = await (await fetch("/api/status", { method: "POST" })).json();
    running = status.running;
    if (status.failed) failed.learn = status.failed;
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
  if (moved) {
    data.version += 1;
  }
  refresh();
}

/** A page that was saved has the steps that were taken then. */
function playSaved(steps) {
  const frames = saved.frames;
  const at = steps === null ? 0 : frames.findIndex((f) => f.steps >= frames[data.frame || 0].steps + steps);
  data.before = { picture: data.picture, position: data.position, first: 0 };
  data.frame = at < 0 ? frames.length - 1 : at;
  data.progress = { ...data.progress, losses: saved.losses.slice(0, frames[data.frame].steps), updates: frames[data.frame].steps, actions: data.frame ? [{}] : [] };
  data.version += 1;
  refresh();
}

function renderLearn() {
  const place = section("steps", "Training");
  const task = data.model.task;
  const { losses, actions, diverged, updates } = data.progress;
  const busy = Boolean(data.learning);
  const button = (text, key, action, disabled) => el("button", { type: "button", text, "data-key": key, disabled, on: { click: action } });
  const onTask = task && state.target !== "one" && byTask();
  if (task && !saved) {
    place.append(el("p", { class: "choices" }, el("span", { text: "It learns from " }),
      toggle("batches", task === "addition" ? "sums" : "the text's characters", byTask(), () => setTask(true)),
      toggle("this-text", "the text above alone", !byTask(), () => setTask(false))));
  }
  place.append(el("p", { class: "buttons" },
    ...[1, 10, 100].map((n) => button(n === 1 ? "1 step" : `${n} steps`, `steps ${n}`, () => learn(n, onTask), busy)),
    task && !saved ? button("Train", "train", () => learn(ALL, onTask), busy) : null,
    saved ? null : button("Stop", "stop", () => ask("stop"), !busy),
    button("Undo", "undo", undo, busy || !actions.length)));
  if (!saved) {
    place.append(slider("lr", "Learning rate", rateNow(), { min: -6, max: 0.5, step: 0.1, say: (v) => shown(10 ** v), change: (v) => { state.lr = v; writeAddress(); } }));
  }
  if (failed.learn) place.append(el("p", { class: "failed", role: "alert", text: failed.learn }));
  place.append(el("p", { id: "updates", text: updates ? `${counted(updates, "step")} taken${last(losses)}.` : "No step was taken yet." }));
  if (losses.length) place.append(curve(losses, { label: `The loss of ${counted(losses.length, "step")}, from ${shown(losses[0])} to ${shown(losses.at(-1))}` }));
  const words = divergence(losses, diverged);
  if (words) place.append(el("p", { class: "failed", id: "diverged", role: "alert", text: words }));
  return [place];
}

/** The decimal logarithm of the learning rate: the chosen one, or one that suits the model. */
function rateNow() {
  if (state.lr !== null) return state.lr;
  return data.model.task ? -2.5 : data.model.parameters > 1e7 ? -4 : -3;
}

function last(losses) {
  return losses.length ? `, the last one's loss ${shown(losses.at(-1))}` : "";
}

function toggle(key, text, pressed, action) {
  return el("button", { type: "button", "data-key": key, "aria-pressed": String(pressed), text, on: { click: action } });
}

function byTask() {
  return data.byTask !== false && Boolean(data.model.task);
}

function setTask(value) {
  data.byTask = value;
  render();
}

function divergence(losses, diverged) {
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
  if (!was || !data.position || !data.picture || was.picture === data.picture || was.picture.att.length !== data.picture.att.length) {
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
  place.append(el("h4", { text: "Heads whose attention moved most" }), el("ul", { class: "bars wide-names" }, ...moved.slice(0, 4).map(([i, h, most]) =>
    barRow({ name: `block ${i}, head ${h}`, value: most, text: percent(most), action: () => set({ block: i, head: h }), pressed: state.block === i && state.head === h, key: `moved-head ${i} ${h}` }))));
  const T = data.picture.tokens.length, mean = (norms, place) => part(norms, place).reduce((a, b) => a + b, 0) / T;
  place.append(el("h4", { text: "Norm of the stream after each block, on average" }), el("ul", { class: "bars plain-bars" }, ...[...Array(L).keys()].map((i) =>
    el("li", { class: "bar-row" }, el("span", { class: "bar-name", text: `block ${i}` }), el("span", { class: "wide", text: `${shown(mean(was.picture.norms, 2 * i + 2))} → ${shown(mean(data.picture.norms, 2 * i + 2))}` })))));
  return place;
}
