// The page: it reads the state of the service, and follows the stream of its changes.

import { request, events, Unauthorized } from "./stream.js";
import { byID, clone, field, setText, setList, Keyed, bytes, number } from "./view.js";
import { Plot } from "./plot.js";

const maxRequests = 50, maxSamples = 180;

let requests = new Map(); // by seq
let samples = [];
let models = [];
let rights = {};

const cards = new Keyed(byID("cards"), () => clone("card-template"));
const modelCards = new Keyed(byID("model-list"), createModel);
const rows = new Keyed(byID("requests"), createRow);
const generated = new Plot("Generated tokens", "tokens/s", v => `${v.toFixed(1)} tokens/s`);
const prompts = new Plot("Prompt tokens", "tokens/s", v => `${v.toFixed(1)} tokens/s`);
const memory = new Plot("Memory of the cards", "used", bytes);
byID("plots").append(generated.element, prompts.element, memory.element);

function showCards() {
  const list = samples.at(-1)?.cards ?? [];
  byID("cards-section").hidden = samples.length === 0; // a key with limits gets none
  byID("no-cards").hidden = list.length > 0;
  cards.update(list, c => c.pci, (element, c) => {
    const others = Math.max(c.used - c.ours, 0), free = Math.max(c.total - c.used, 0);
    setText(element.querySelector("h3"), `${c.name || "Graphics card"} (${c.pci})`);
    const [ours, rest] = element.querySelectorAll("rect");
    const share = n => c.total ? String(100 * n / c.total) : "0";
    ours.setAttribute("width", share(Math.min(c.ours, c.used)));
    rest.setAttribute("x", share(Math.min(c.ours, c.used)));
    rest.setAttribute("width", share(others));
    element.querySelector("svg").setAttribute("aria-label", `Memory of ${bytes(c.total)}: ours ${bytes(c.ours)}, others ${bytes(others)}, free ${bytes(free)}`);
    setText(field(element, "ours"), bytes(c.ours));
    setText(field(element, "others"), c.known ? bytes(others) : "–");
    setText(field(element, "free"), c.known ? bytes(free) : "–");
    setText(field(element, "temperature"), number(c.edge_celsius, "°C"));
    setText(field(element, "power"), number(c.power_watts, "W"));
    setText(field(element, "clock"), number(c.shader_mhz, "MHz"));
  });
}

function showPlots() {
  byID("plots-section").hidden = samples.length === 0;
  const now = Date.now();
  const points = value => samples.map(s => ({ time: Date.parse(s.time), value: value(s) }));
  generated.draw(points(s => s.generated_per_second), now);
  prompts.draw(points(s => s.prompt_per_second), now);
  const sum = (s, member) => s.cards.reduce((n, c) => n + c[member], 0);
  const last = samples.at(-1);
  memory.element.hidden = !last || last.cards.length === 0;
  if (!memory.element.hidden) memory.draw(points(s => sum(s, "used")), now, sum(last, "total"));
}

function createModel(model) {
  const element = clone("model-template");
  for (const button of element.querySelectorAll("button")) {
    button.setAttribute("aria-label", `${button.textContent} ${model.id}`);
    button.addEventListener("click", () => control(button.dataset.action, model.id));
  }
  return element;
}

function showModels() {
  byID("no-models").hidden = models.length > 0;
  modelCards.update(models, m => m.id, (element, m) => {
    setText(element.querySelector("h3"), m.id);
    const state = element.querySelector(".state");
    setText(state, m.state);
    state.dataset.state = m.state;
    const facts = [m.size && bytes(m.size), m.context && `${m.context} tokens of context`, m.running && `${m.running} running`, m.waiting && `${m.waiting} waiting`, m.pinned && "pinned"];
    setText(field(element, "facts"), facts.filter(Boolean).join(" · "));
    const progress = element.querySelector("progress");
    progress.hidden = m.state !== "loading";
    if (!progress.hidden) {
      progress.value = m.progress;
      progress.setAttribute("aria-label", `Loading ${m.id}`);
    }
    const running = m.state === "loaded" || m.state === "loading";
    const buttons = element.querySelector(".buttons");
    buttons.hidden = !rights.load && !rights.unload;
    buttons.querySelector("[data-action=load]").disabled = !rights.load || running || m.state === "unloading";
    buttons.querySelector("[data-action=unload]").disabled = !rights.unload || !running;
    const plan = element.querySelector(".plan");
    plan.hidden = !m.why?.length;
    setList(plan.querySelector("ul"), m.why ?? []);
    const failure = element.querySelector(".failure");
    failure.hidden = !m.failure && !m.cause;
    setText(failure.querySelector(".error"), m.failure?.message ?? m.cause ?? "");
    setText(failure.querySelector(".remedy"), m.failure?.remedy ? `What to do: ${m.failure.remedy}.` : "");
    failure.querySelector("details").hidden = !m.failure?.log?.length;
    setText(failure.querySelector("pre"), m.failure?.log?.join("\n") ?? "");
  });
}

function createRow() {
  const row = document.createElement("tr");
  for (let i = 0; i < 11; i++) {
    const cell = row.insertCell();
    if (i > 4) cell.className = "number";
    if (i === 4) cell.className = "state-cell";
  }
  return row;
}

function showRequests() {
  const list = [...requests.values()].sort((a, b) => b.seq - a.seq).slice(0, maxRequests);
  requests = new Map(list.map(r => [r.seq, r]));
  byID("no-requests").hidden = list.length > 0;
  rows.update(list, r => r.seq, (row, r) => {
    row.dataset.seq = r.seq;
    const state = r.stage === "done" ? [r.outcome, r.status >= 400 && r.status, r.why].filter(Boolean).join(": ") : r.stage;
    [new Date(r.time).toLocaleTimeString(), r.model || "–", r.route, r.key || "–", state,
      String(r.prompt_tokens), String(r.cached_tokens), String(r.generated_tokens), number(r.wait_seconds, "s", 1), number(r.first_token_seconds, "s", 2), number(r.tokens_per_second, "", 1).trim(),
    ].forEach((text, i) => setText(row.cells[i], text));
  });
}

// paint draws what has changed, at most once for each frame.
const painters = new Set();
function paint(...functions) {
  if (painters.size === 0) {
    setTimeout(() => {
      const all = [...painters];
      painters.clear();
      all.forEach(f => f());
    }, 100);
  }
  functions.forEach(f => painters.add(f));
}

/** control loads or unloads a model. */
async function control(action, model) {
  setText(byID("action-error"), "");
  try {
    await request(`/models/${action}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ model }) });
  } catch (err) {
    if (err instanceof Unauthorized) return signIn();
    setText(byID("action-error"), `${model}: ${err.message}`);
  }
}

function setModels(list) {
  for (const m of list) {
    const before = models.find(other => other.id === m.id);
    if (before && before.state !== m.state) setText(byID("announcement"), `${m.id}: ${m.state}`);
  }
  models = list;
  paint(showModels);
}

/** addRequest adds a request, or its newer state. */
function addRequest(r) {
  if (requests.get(r.seq)?.seconds > r.seconds) return;
  requests.set(r.seq, r);
  paint(showRequests);
}

function receive(event) {
  if (event.request) addRequest(event.request);
  if (event.models) setModels(event.models);
  if (event.sample) {
    samples = [...samples, event.sample].slice(-maxSamples);
    paint(showCards, showPlots);
  }
}

/** follow shows the state and its changes until the stream ends. */
async function follow(signal) {
  const stream = await request("/status/events", { signal }); // first, so that no change is missed
  const data = await (await request("/status/data", { signal })).json();
  rights = { load: data.can_load, unload: data.can_unload };
  samples = data.samples.slice(-maxSamples);
  requests.clear();
  [...data.recent, ...data.running].forEach(addRequest);
  setModels(data.models);
  byID("capture").hidden = data.capture === 0;
  setText(byID("capture"), `The service keeps the bodies of the last ${data.capture} requests (--capture).`);
  byID("content").hidden = false;
  byID("sign-out").hidden = !data.signed_in;
  for (const show of [showModels, showCards, showPlots, showRequests]) show(); // "Live" is said of what is shown
  setText(byID("connection"), "Live");
  await events(stream, receive);
}

/** run follows the service, and connects again where the connection ends. */
async function run() {
  for (let wait = 1; ; wait = Math.min(2 * wait, 30)) {
    const controller = new AbortController();
    try {
      const began = Date.now();
      await follow(controller.signal);
      if (Date.now() - began > 10_000) wait = 1;
    } catch (err) {
      if (err instanceof Unauthorized) return signIn();
    }
    controller.abort();
    setText(byID("connection"), `Not connected; the next attempt is in ${wait} s`);
    await new Promise(resolve => setTimeout(resolve, wait * 1000));
  }
}

/** signIn opens the page to sign in: the session has ended, or the key was removed. */
function signIn() {
  location.assign("/sign-in?next=/status");
}

run();
