// Operator's page of a session of robot trials. The desk has the state; this page shows it, and asks for changes.
// A change has a key that is kept until it is answered, so that neither a reload nor a lost answer repeats it.
"use strict";

const AGAIN_MS = 1000; // before a call that found no desk is made again
const SETTLE_MS = 400; // after a change, taps and pedals that bounce are not taken
const PENDING = "vqbet-pending", KEYS = "vqbet-keys", OPACITY = "vqbet-opacity";
const DEFAULT_KEYS = { main: [" ", "Enter"], undo: ["u"], invalid: ["i"], pause: ["p"] };
const ENDED = { robot: "The robot has ended it", operator: "Stopped by you", timeout: "Its time was up", guard: "The robot's guard has stopped it", lost: "The connection was lost" };
const WHY = { decided: "The trials have decided.", complete: "All trials are done." };

const at = (name) => document.getElementById(name);
const rest = (ms) => new Promise((done) => setTimeout(done, ms));
const written = (store, name) => { try { return JSON.parse(store.getItem(name)); } catch { return null; } };

let state = null; // as of the desk
let received = 0; // when, in ms of this page
let busy = false; // a change is not answered yet
let settled = 0; // until when nothing is taken
let sentence = ""; // the desk's last refusal
let away = false; // the desk cannot be reached
let tag = "";
let keys = { ...DEFAULT_KEYS, ...written(localStorage, KEYS) };

// --- calls

async function call(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  return fetch(path, { credentials: "same-origin", cache: "no-store", redirect: "error", ...options });
}

async function change(verb, more = {}) {
  if (busy || !state || Date.now() < settled) return;
  const wanted = { verb, body: { key: crypto.getRandomValues(new Uint32Array(4)).join("-"), trial: state.trial, ...more } };
  sessionStorage.setItem(PENDING, JSON.stringify(wanted));
  await deliver(wanted);
}

async function deliver(wanted) {
  busy = true;
  sentence = "";
  show();
  for (;;) {
    try {
      const answer = await call(`/api/${wanted.verb}`, wanted.body);
      const said = await answer.json();
      sessionStorage.removeItem(PENDING);
      busy = false;
      if (answer.ok) take(said);
      else if (answer.status === 401) leave();
      else sentence = said.error || `HTTP ${answer.status}`;
      return show();
    } catch {
      away = true;
      show();
      await rest(AGAIN_MS);
    }
  }
}

async function follow() {
  for (;;) {
    try {
      const answer = await call(`/api/state?wait=20&after=${encodeURIComponent(state ? state.version : "")}`);
      if (answer.status === 401) return leave();
      if (!answer.ok) throw new Error(answer.status);
      take(await answer.json());
      if (state.phase === "closed") return;
    } catch {
      away = true;
      show();
      await rest(AGAIN_MS);
    }
  }
}

function take(said) {
  const before = state;
  state = said;
  received = performance.now();
  away = false;
  if (!before || before.phase !== said.phase || before.trial !== said.trial) {
    settled = before ? Date.now() + SETTLE_MS : 0;
    sentence = "";
    setTimeout(show, SETTLE_MS + 10);
    if (said.phase !== "stopped") { tag = ""; at("remark").value = ""; }
    for (const open of document.querySelectorAll("dialog[open]")) if (open.id === "why") open.close();
  }
  show();
}

function leave() {
  document.body.dataset.phase = "outside";
  at("title").textContent = "Open the address that the desk has printed";
  at("text").textContent = "It ends with # and a secret. vqbet trials run prints it when it starts.";
  at("notice").hidden = true;
}

// --- camera

async function look() {
  const canvas = at("live"), context = canvas.getContext("2d");
  let number = 0;
  for (;;) {
    try {
      const answer = await call(`/api/camera?after=${number}`);
      if (answer.status === 401 || (state && state.phase === "closed")) return;
      if (answer.status === 200) {
        number = Number(answer.headers.get("X-Number"));
        const picture = await createImageBitmap(await answer.blob());
        if (canvas.width !== picture.width || canvas.height !== picture.height) [canvas.width, canvas.height] = [picture.width, picture.height];
        context.drawImage(picture, 0, 0);
        picture.close();
        if (canvas.hidden) { canvas.hidden = false; show(); }
      } else if (answer.status !== 204) await rest(AGAIN_MS);
    } catch {
      await rest(AGAIN_MS);
    }
  }
}

// --- page

function show() {
  if (!state || document.body.dataset.phase === "outside") return;
  const { phase, robot } = state;
  const here = phase === "ready" || phase === "armed";
  document.body.dataset.phase = phase;
  at("count").textContent = `${state.done} of ${state.most}`;
  at("block").textContent = `block ${state.block} of ${state.blocks}`;
  at("progress").max = state.most;
  at("progress").value = state.done;
  at("robot").classList.toggle("gone", !robot.present);
  at("server").classList.toggle("gone", Boolean(state.server));
  at("operator").textContent = state.operator;
  at("robot-name").textContent = robot.name + (robot.simulated ? ", simulated" : "");
  at("plan").textContent = `${state.task}, ${state.plan}`;
  showScene(here);
  showWords(phase);
  showMain(phase);
  at("undo").hidden = !state.last.trial || !(phase === "ready" || phase === "paused");
  at("last").textContent = state.last.state === "invalid" ? `Invalid: ${state.last.what}` : `Entered: ${state.last.what}`;
  at("invalid").hidden = !["armed", "running", "stopped"].includes(phase) || mainOf(phase).verb === "invalid";
  at("pause").hidden = phase !== "ready";
  at("end-open").hidden = !(phase === "ready" || phase === "paused");
  at("side").hidden = at("invalid").hidden && at("pause").hidden;
  const grading = phase === "stopped" && state.ended.counts;
  for (const name of ["tags", "stages", "remark"]) at(name).hidden = !grading;
  at("tags").hidden = at("tags").hidden || !state.tags.length;
  fill("stages", state.stages, (name, number) => ({ text: name, number: number + 1, act: () => act(`stage ${number + 1}`) }));
  fill("tags", state.tags, (name) => ({ text: name, act: () => { tag = tag === name ? "" : name; show(); } }));
  fill("reasons", state.invalid, (name) => ({ text: name, act: () => invalid(name) }));
  for (const button of at("tags").children) button.setAttribute("aria-pressed", String(button.textContent === tag));
  for (const one of document.querySelectorAll("kbd[data-key]")) one.textContent = keyNames(one.dataset.key);
}

function showScene(here) {
  const wanted = at("wanted"), live = !at("live").hidden, { picture } = state.condition;
  const source = picture ? `/api/picture/${picture}` : "";
  if (wanted.getAttribute("src") !== source) { if (source) wanted.src = source; else wanted.removeAttribute("src"); }
  wanted.hidden = !source || (live && !here);
  wanted.style.opacity = live ? at("opacity").value / 100 : 1;
  at("fade").hidden = !(live && source && here);
  at("blank").hidden = Boolean(source) || live || !state.trial;
  at("code").textContent = state.phase === "ready" || state.phase === "paused" ? "" : state.trial;
  at("code").hidden = !at("code").textContent;
  at("clock").hidden = state.phase !== "running";
  tick();
}

function showWords(phase) {
  const { name, text } = state.condition;
  const ended = ENDED[state.ended.by] || "";
  const words = {
    ready: state.trial ? [name, text || "Set the scene up as in the picture."] : ["No trial is left", "Finish the session, or undo the last outcome."],
    armed: [name, state.robot.present ? "The robot is about to begin." : "Waiting for the robot."],
    running: [name, state.stopping ? "The robot is coming to a stop." : "The robot is acting."],
    stopped: state.ended.counts ? ["How far did it get?", `${ended} after ${state.ended.duration_s} s.`] : ["This trial cannot count", `${ended}. Declare it invalid; its condition comes again.`],
    paused: ["Paused", "Nothing moves until you go on."],
    closed: ["The session is closed", `${WHY[state.closed] || "You have ended it."} Thank you. To unblind it: vqbet trials judge ${state.task}`],
  }[phase];
  at("title").textContent = words[0];
  at("text").textContent = words[1];
  const robot = state.robot.present ? "" : `Robot ${state.robot.name} is not there.`;
  const said = away ? "The desk cannot be reached. Nothing is lost; trying again." : sentence || (phase === "closed" ? "" : state.server || robot);
  at("notice").textContent = said;
  at("notice").hidden = !said;
}

function mainOf(phase) {
  if (phase === "ready") return state.trial ? { text: "Start", verb: "start" } : { text: "Finish", verb: "start" };
  if (phase === "armed") return { text: state.robot.present ? "Starting…" : "Waiting for the robot…", verb: "" };
  if (phase === "running" && !state.robot.present) return { text: "The robot is lost", verb: "lost", stop: true };
  if (phase === "running") return state.stopping ? { text: "Stopping…", verb: "" } : { text: "Stop", verb: "stop", stop: true };
  if (phase === "stopped" && !state.ended.counts) return { text: "Invalid", verb: "invalid" };
  if (phase === "paused") return { text: "Go on", verb: "resume" };
  return { text: "", verb: "" };
}

function showMain(phase) {
  const { text, verb, stop } = mainOf(phase), button = at("main");
  button.hidden = !text;
  button.className = stop ? "stop" : "";
  const label = busy ? "One moment…" : text;
  if (button.dataset.label !== label + keys.main) {
    button.dataset.label = label + keys.main;
    const hint = document.createElement("kbd");
    hint.textContent = verb && !busy ? keyNames("main") : "";
    button.replaceChildren(label, hint);
  }
  const waits = busy || Date.now() < settled;
  button.disabled = !verb || busy;
  for (const one of document.querySelectorAll("#stages button, #side button, #undo button, #reasons button, #end-yes")) one.disabled = waits;
}

function fill(name, words, made) {
  const box = at(name), said = JSON.stringify([words, keys]);
  if (box.dataset.said === said) return;
  box.dataset.said = said;
  box.replaceChildren(...words.map((word, index) => {
    const { text, number, act } = made(word, index), button = document.createElement("button");
    button.textContent = text;
    if (number) {
      button.dataset.number = number;
      const hint = document.createElement("kbd");
      hint.textContent = keyNames(`stage ${number}`);
      if (hint.textContent !== String(number)) button.append(hint);
    }
    button.addEventListener("click", act);
    return button;
  }));
  showMain(state.phase);
}

// --- what can be done, by tap or key

function act(what) {
  if (!state || busy || Date.now() < settled) return;
  const { phase } = state;
  if (what === "main") {
    const { verb } = mainOf(phase);
    if (verb === "invalid") at("why").showModal();
    else if (verb) change(verb);
  } else if (what === "undo" && !at("undo").hidden) change("undo", { trial: state.last.trial });
  else if (what === "invalid" && ["armed", "running", "stopped"].includes(phase)) at("why").showModal();
  else if (what === "pause" && phase === "ready") change("pause");
  else if (what === "pause" && phase === "paused") change("resume");
  else if (what === "end") { at("end").close(); change("end"); }
  else if (what.startsWith("stage ") && phase === "stopped" && state.ended.counts) {
    const number = Number(what.slice(6)), stage = state.stages[number - 1];
    if (stage !== undefined) change("grade", { stage, tag: number === state.stages.length ? "" : tag, remark: at("remark").value.trim() });
  }
}

function invalid(reason) {
  const remark = at("why-remark").value.trim();
  at("why").close();
  at("why-remark").value = "";
  change("invalid", { reason, remark });
}

// --- keys and pedals

const keysOf = (what) => keys[what] || (what.startsWith("stage ") ? [what.slice(6)] : []);
const keyName = (key) => (key === " " ? "Space" : key);
const keyNames = (what) => keysOf(what).map(keyName).join(" ");
const actions = () => [["main", "Start, Stop, Go on"], ["undo", "Undo"], ["invalid", "Invalid"], ["pause", "Pause"], ...(state ? state.stages : []).map((name, index) => [`stage ${index + 1}`, name])];
let binding = "";

function showBindings() {
  at("bindings").replaceChildren(...actions().map(([what, text]) => {
    const button = document.createElement("button"), key = document.createElement("kbd");
    button.dataset.action = what;
    button.textContent = text;
    key.textContent = binding === what ? "press it" : keyNames(what);
    button.classList.toggle("waiting", binding === what);
    button.append(key);
    button.addEventListener("click", () => { binding = binding === what ? "" : what; showBindings(); });
    return button;
  }));
  show();
}

function bind(key) {
  for (const [other] of actions()) if (other !== binding && keysOf(other).includes(key)) keys[other] = keysOf(other).filter((one) => one !== key);
  keys[binding] = [key];
  binding = "";
  localStorage.setItem(KEYS, JSON.stringify(keys));
  showBindings();
}

function pressed(event) {
  if (binding && at("keys").open) {
    event.preventDefault();
    if (event.key === "Escape") { binding = ""; showBindings(); }
    else if (!event.repeat) bind(event.key);
    return;
  }
  const typing = event.target.closest("textarea, input:not([type=range])");
  if (typing || document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
  const onButton = event.target.closest("button") && event.target.matches(":focus-visible") && (event.key === " " || event.key === "Enter");
  const found = actions().find(([what]) => keysOf(what).includes(event.key.length === 1 ? event.key.toLowerCase() : event.key) || keysOf(what).includes(event.key));
  if (onButton || !found) return;
  event.preventDefault();
  if (!event.repeat) act(found[0]);
}

// --- begin

function tick() {
  if (!state || state.phase !== "running") return;
  const elapsed = Math.max(0, state.elapsed_s + (performance.now() - received) / 1000), seconds = Math.floor(elapsed);
  at("clock").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  at("clock").classList.toggle("late", state.timeout_s - elapsed < 10);
}

async function stayAwake() {
  try { await navigator.wakeLock.request("screen"); } catch { /* the phone may sleep */ }
}

function listen() {
  for (const one of document.querySelectorAll("[data-do]")) one.addEventListener("click", () => act(one.dataset.do));
  for (const one of document.querySelectorAll("[data-close]")) one.addEventListener("click", () => one.closest("dialog").close());
  at("more").addEventListener("click", () => at("menu").showModal());
  at("keys-open").addEventListener("click", () => { at("menu").close(); showBindings(); at("keys").showModal(); });
  at("keys-reset").addEventListener("click", () => { keys = { ...DEFAULT_KEYS }; binding = ""; localStorage.removeItem(KEYS); showBindings(); });
  at("end-open").addEventListener("click", () => { at("menu").close(); at("end").showModal(); });
  at("opacity").value = written(localStorage, OPACITY) ?? 50;
  at("opacity").addEventListener("input", () => { localStorage.setItem(OPACITY, at("opacity").value); show(); });
  document.addEventListener("keydown", pressed);
  document.addEventListener("pointerup", (event) => { if (event.target.closest("button")) document.activeElement.blur(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) stayAwake(); });
}

async function enter() {
  const token = location.hash.slice(1);
  if (!token) return true;
  for (;;) {
    try {
      const answer = await call("/api/enter", { token });
      history.replaceState(null, "", location.pathname);
      return answer.ok || (await call("/api/state")).ok;
    } catch {
      await rest(AGAIN_MS);
    }
  }
}

async function begin() {
  listen();
  if (!(await enter())) return leave();
  follow();
  look();
  stayAwake();
  setInterval(tick, 200);
  const left = written(sessionStorage, PENDING);
  if (left) deliver(left);
}

begin();
