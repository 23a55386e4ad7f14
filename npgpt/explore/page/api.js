"use strict";
// Questions to the program, or to what was saved with the page; and what the machine is doing.

let waiting = 0; // questions on their way

async function ask(name, args = {}) {
  if (saved) return savedAnswer(name, args);
  waiting += 1;
  watch();
  try {
    let response;
    try {
      response = await fetch(`/api/${name}`, {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(args),
      });
    } catch {
      throw new Error("The program does not answer: has it ended? Start npgpt explore again.");
    }
    const text = await response.text();
    if (!response.ok) throw new Error(sentence(text, response.status));
    return parsed(text);
  } finally {
    waiting -= 1;
  }
}

function sentence(text, status) {
  try {
    const said = JSON.parse(text).error;
    return said[0].toUpperCase() + said.slice(1) + ".";
  } catch {
    return `The program answered with status ${status}: this is a mistake in it.`;
  }
}

/** The key of an answer that was saved: the question and its arguments but for the text. */
function savedKey(name, args) {
  const { text, edits, ...others } = args;
  const words = Object.values(others).map((v) => (v === null || v === undefined ? "" : String(v)));
  return [name, ...words, edits && edits.length ? JSON.stringify(edits) : ""].join("|");
}

async function savedAnswer(name, args) {
  const frame = saved.frames[data.frame].answers;
  const key = savedKey(name, args);
  const found = frame[key] ?? (name === "code" ? saved.frames[0].answers[key] : undefined);
  if (found === undefined) {
    throw new Error("This page was saved without that number. With the program, npgpt explore, every number is there.");
  }
  return found;
}

// The status line.

async function machineStatus() {
  return (await fetch("/api/status", { method: "POST" })).json();
}

let watching = false;

async function watch() {
  if (watching) return;
  watching = true;
  await new Promise((done) => setTimeout(done, 150)); // what is answered at once needs no words
  while (waiting > 0) {
    try {
      const { doing } = await machineStatus();
      if (!data.learning) {
        say(doing);
        announce(doing);
      }
    } catch {
      break;
    }
    await new Promise((done) => setTimeout(done, 300));
  }
  watching = false;
  if (!data.learning) say("");
}

/** Say what the machine does, or that it waits. */
function say(words) {
  const line = saved ? "saved page: nothing is computed" : words || "ready";
  const place = byId("status");
  if (place.textContent !== line) place.textContent = line;
  document.body.classList.toggle("busy", Boolean(words));
}

/** Tell a screen reader; the status line, which changes many times a second, is not read. */
function announce(words) {
  const place = byId("announced");
  if (words && place.textContent !== words) place.textContent = words;
}
