"use strict";
// The search page. Its state is the address: a picture or a row of the index, the filters, a name.

const FIELDS = ["scene", "row", "picture", "person", "whole_image", "name", "camera", "after", "before", "top", "own_image", "version"];
const FILTERS = ["camera", "after", "before", "top", "own_image"];
const at = (id) => document.getElementById(id);
let state = {};      // the fields that the address gives
let matches = [];    // those on the page
let shown = 0;       // the match in the dialog
let wanted = 0;      // answers to older questions are dropped
let version = document.querySelector("[data-version]").dataset.version;  // of the index that rows refer to

// Elements

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function drawing(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function tell(text) {
  at("status").textContent = text;
}

function tellProblem(what, todo = "") {
  tell("");
  at("problem").replaceChildren(make("p", { class: "error", role: "alert" }, what, make("span", { class: "todo" }, todo && ` ${todo}`)));
}

const timeOf = (person) => (person.time || "").replace("T", " ");
const placeOf = (person) => [person.camera, timeOf(person)].filter(Boolean).join(", ");
const percentOf = (part, whole) => `${(100 * part) / whole}%`;
const cropOf = (row) => `api/people/${row}/crop?version=${version}`;
const sceneOf = (row) => `api/scenes/${encodeURIComponent(row)}/picture?version=${version}`;

// Requests

class Problem extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Problem(0, "The server does not answer.");
  }
  if (response.ok) return response.json();
  const body = await response.json().catch(() => ({}));
  throw new Problem(response.status, body.error || `The server answered with status ${response.status}.`);
}

const TODO = {
  0: "Check that it is still running, then try again.",
  401: "Reload this page to sign in.",
  415: "Choose a JPEG, PNG or WebP picture.",
  503: "Try again in a moment.",
};

const GONE = [404, 409];  // what the address names is not there any more

async function attempt(text, work) {
  const turn = ++wanted;
  at("problem").replaceChildren();
  tell(text);
  document.body.setAttribute("aria-busy", "true");
  try {
    await work(() => turn === wanted);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (turn !== wanted) return;
    tellProblem(sentence(error.message), TODO[error.status]);
    if (GONE.includes(error.status)) await startOver();
  } finally {
    if (turn === wanted) document.body.removeAttribute("aria-busy");
  }
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

// The address

function readAddress() {
  const given = new URLSearchParams(location.search);
  state = Object.fromEntries(FIELDS.filter((name) => given.get(name)).map((name) => [name, given.get(name)]));
}

function go(next, replace = false) {
  state = next;
  const query = new URLSearchParams(FIELDS.filter((name) => next[name]).map((name) => [name, next[name]]));
  const address = query.size ? `?${query}` : location.pathname;
  history[replace ? "replaceState" : "pushState"](null, "", address);
  return show();
}

const filters = () => Object.fromEntries(FILTERS.concat("name").map((name) => [name, state[name]]));

function show() {
  const isSearch = state.row || state.person || state.whole_image || (state.name && !state.scene && !state.picture);
  at("start").hidden = Boolean(isSearch || state.scene || state.picture);
  at("who").hidden = !(state.scene || state.picture) || Boolean(isSearch);
  at("found").hidden = !isSearch;
  if (isSearch) return showMatches();
  if (state.picture) return showPicture();
  if (state.scene) return showScene();
  return showExamples();
}

// Start

function showExamples() {
  return attempt("", async (isCurrent) => {
    const examples = await ask("api/examples");
    if (isCurrent()) drawExamples(examples);
  });
}

async function startOver() {
  for (const id of ["who", "found"]) at(id).hidden = true;
  at("start").hidden = false;
  drawExamples(await ask("api/examples").catch(() => []));
}

function drawExamples(examples) {
  at("examples").hidden = examples.length === 0;
  at("examples").querySelector("ul").replaceChildren(...examples.map((example) => {
    const people = example.people === 1 ? "1 person" : `${example.people} people`;
    return make("li", {}, make("a", { href: `?scene=${example.row}` },
      make("img", { src: sceneOf(example.row), alt: "", loading: "lazy" }), `${example.image}, ${people}`));
  }));
  if (!examples.length) tell("The index has no people yet: add scenes with `personsearch index`.");
}

function send(file) {
  if (!file) return;
  attempt("Looking for people in the picture", async (isCurrent) => {
    const picture = await ask("api/pictures", { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
    if (isCurrent()) await go({ ...filters(), picture: picture.picture, person: picture.people.length === 1 ? "1" : undefined });
  });
}

// Who are you looking for?

function outlined(place, source, size, people, label) {
  const image = make("img", { src: source, alt: "", width: size.width, height: size.height });
  const area = ({ box: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
  const bySize = [...people].sort((a, b) => area(b) - area(a));
  const buttons = people.map((person) => {
    const [x1, y1, x2, y2] = person.box;
    const button = make("button", { class: person.marked ? "outline marked" : "outline", "aria-label": label(person), onclick: person.choose });
    Object.assign(button.style, {
      left: percentOf(Math.max(0, x1), size.width),
      top: percentOf(Math.max(0, y1), size.height),
      width: percentOf(Math.min(x2, size.width) - Math.max(0, x1), size.width),
      height: percentOf(Math.min(y2, size.height) - Math.max(0, y1), size.height),
      zIndex: person.marked ? people.length + 1 : bySize.indexOf(person) + 1,  // small ones stay within reach
    });
    if (person.number) button.append(make("span", { "aria-hidden": "true" }, String(person.number)));
    return button;
  });
  const frame = make("div", { class: "outlined" }, image, ...buttons);
  frame.style.setProperty("--aspect", size.width / size.height);
  place.replaceChildren(frame);
}

function choosing(told, source, size, people, whole) {
  at("who-told").textContent = told;
  at("whole").hidden = !whole;
  outlined(at("picture"), source, size, people, (person) => `Person ${person.number}`);
  tell(people.length ? "" : "No people were found in this picture.");
  at("who").querySelector("h2").focus({ preventScroll: true });
}

function showPicture() {
  return attempt("Loading the picture", async (isCurrent) => {
    const picture = await ask(`api/pictures/${encodeURIComponent(state.picture)}`);
    if (!isCurrent()) return;
    const people = picture.people.map((person) => ({
      ...person, number: person.person, choose: () => go({ ...state, person: String(person.person) }),
    }));
    const told = people.length ? "Choose one of the outlined people." : "No people were found. If the picture is a crop of one person, use the whole picture.";
    choosing(told, `api/pictures/${encodeURIComponent(state.picture)}/picture`, picture, people, true);
  });
}

function showScene() {
  return attempt("Loading the scene", async (isCurrent) => {
    const scene = await ask(`api/scenes/${encodeURIComponent(state.scene)}`);
    if (!isCurrent()) return;
    const people = scene.people.map((person, number) => ({
      ...person, number: number + 1, choose: () => go({ ...filters(), row: String(person.row), version }),
    }));
    choosing([scene.image, placeOf(scene)].filter(Boolean).join(", "), sceneOf(state.scene), scene, people, false);
  });
}

// Matches

const entered = (field) => field.type !== "checkbox" ? field.value : field.checked ? "true" : "";

function put(field, value) {
  if (field.type === "checkbox") field.checked = value === "true";
  else field.value = value;
}

function question() {
  const asked = new URLSearchParams();
  for (const name of FIELDS) if (state[name] && name !== "scene") asked.set(name, state[name]);
  return asked;
}

function showMatches() {
  for (const name of FILTERS.concat("name")) if (at(name)) put(at(name), state[name] || (name === "top" ? "24" : ""));
  at("own").hidden = !(state.row || state.picture);  // a name alone has no image of its own
  return attempt("Searching", async (isCurrent) => {
    const [answer, judged] = await Promise.all([
      ask(`api/search?${question()}`),
      state.name ? ask(`api/judgements?${new URLSearchParams({ name: state.name })}`) : null,
    ]);
    if (!isCurrent()) return;
    version = answer.version;
    if (state.row && !state.version) {
      state.version = version;
      history.replaceState(null, "", `?${question()}`);
    }
    matches = answer.matches;
    drawQuery(answer.query);
    drawJudged(judged);
    drawTimeline();
    at("matches").replaceChildren(...matches.map(drawMatch));
    const hidden = answer.hidden ? `; ${answer.hidden} rejected` : "";
    tell(matches.length ? `${matches.length} matches${hidden}` : "No match. Widen the filters, or choose another picture.");
  });
}

function drawQuery(query) {
  const person = query.person ? `?person=${query.person}` : "";
  const sent = query.picture && `api/pictures/${encodeURIComponent(query.picture)}/picture${person}`;
  const from = query.row !== null ? cropOf(query.row) : sent;
  at("query").replaceChildren(make("div", { class: "tile query" },
    from && make("img", { src: from, alt: "The query", width: 84, height: 150 }),
    query.shots === 1 ? "Query" : `Query of ${query.shots} shots`));
}

function drawMatch(match, place) {
  const told = `Match ${match.rank}, similarity ${match.similarity.toFixed(2)}${placeOf(match) && `, ${placeOf(match)}`}`;
  const isConfirmed = match.verdict === "confirmed";
  return make("li", { class: isConfirmed ? "confirmed" : null, id: `match-${match.rank}` },
    make("button", { class: "crop", "aria-label": `${told}: show the scene`, onclick: () => openScene(place) },
      make("img", { src: cropOf(match.row), alt: "", loading: "lazy", width: 96, height: 192 })),
    make("div", {}, make("strong", {}, `${match.rank}.`), ` ${match.similarity.toFixed(2)}`, isConfirmed ? " ✓ confirmed" : ""),
    make("div", { class: "muted" }, match.time ? placeOf(match) : [match.camera, match.image].filter(Boolean).join(", ")),
    make("div", { class: "choices" },
      isConfirmed
        ? make("button", { class: "quiet", "aria-label": `Take back: ${told}`, onclick: () => judge([match.row], "withdrawn") }, "Undo")
        : make("button", { class: "quiet", "aria-label": `Confirm: ${told}`, onclick: () => judge([match.row], "confirmed") }, "Confirm"),
      make("button", { class: "quiet", "aria-label": `Reject: ${told}`, onclick: () => judge([match.row], "rejected") }, "Reject")));
}

function drawJudged(judged) {
  const isEmpty = !judged || !(judged.confirmed.length + judged.rejected.length);
  at("judged").hidden = isEmpty;
  if (isEmpty) return;
  const strip = (title, people) => people.length === 0 ? null : make("details", {},
    make("summary", {}, `${people.length} ${title} for ${judged.name}`),
    make("ul", { class: "judged" }, ...people.map((person) => make("li", {},
      make("img", { src: cropOf(person.row), alt: `${title}, ${placeOf(person) || person.image}`, width: 56, height: 112, loading: "lazy" }),
      make("button", { class: "quiet", "aria-label": `Take back: ${title}, ${placeOf(person) || person.image}`, onclick: () => judge([person.row], "withdrawn") }, "Undo")))));
  const missing = judged.missing ? make("p", { class: "muted" }, `${judged.missing} judged shots are not in the index.`) : null;
  at("judged").replaceChildren(...[strip("confirmed", judged.confirmed), strip("rejected", judged.rejected), missing].filter(Boolean));
}

function judge(rows, verdict) {
  if (!state.name) {
    at("name").focus();
    tellProblem("Name the person first.", "Matches are confirmed or rejected for a named person.");
    return undefined;
  }
  return attempt("Saving", async () => {
    const body = JSON.stringify({ name: state.name, verdict, rows, version });
    await ask("api/judgements", { method: "POST", body, headers: { "Content-Type": "application/json" } });
    await showMatches();
  });
}

// The timeline: a lane per video or camera

function drawTimeline() {
  const moment = (match) => match.time_code ?? (match.time ? Date.parse(`${match.time}Z`) / 1000 : NaN);
  const timed = matches.filter((match) => Number.isFinite(moment(match)));
  const isVideo = timed.some((match) => match.time_code !== null);
  at("timeline").hidden = timed.length < 2;
  if (timed.length < 2) return;
  const lanes = [...new Set(timed.map((match) => isVideo ? match.image : match.camera || ""))].slice(0, 12);
  const times = timed.map(moment);
  const first = isVideo ? 0 : Math.min(...times);
  const span = Math.max(...times) - first || 1;
  const width = Math.max(200, at("timeline").clientWidth), lane = 34, left = 12;
  const svg = drawing("svg", { viewBox: `0 0 ${width} ${lanes.length * lane}`, role: "img", "aria-label": `When the ${timed.length} matches were seen; the list below says the same` });
  lanes.forEach((name, number) => {
    const y = number * lane + 24;
    svg.append(drawing("line", { x1: left, x2: width - left, y1: y, y2: y }), drawing("text", { x: left, y: y - 11 }, name));
  });
  for (const match of [...timed].reverse()) {
    const number = lanes.indexOf(isVideo ? match.image : match.camera || "");
    if (number < 0) continue;
    const dot = drawing("circle", { cx: left + ((moment(match) - first) / span) * (width - 2 * left), cy: number * lane + 24, r: match.rank === 1 ? 8 : 6, class: match.verdict || "" },
      drawing("title", {}, `Match ${match.rank}, ${timeOf(match)}`));
    dot.addEventListener("click", () => openScene(matches.indexOf(match)));
    svg.append(dot);
  }
  const ends = [...timed].sort((a, b) => moment(a) - moment(b));
  at("timeline").replaceChildren(svg, make("figcaption", {}, make("span", {}, isVideo ? "0:00:00" : timeOf(ends[0])), make("span", {}, timeOf(ends[ends.length - 1]))));
}

// The scene of a match

function openScene(place) {
  shown = place;
  const match = matches[place];
  if (!at("scene").open) at("scene").showModal();
  at("scene-title").textContent = `Match ${match.rank}`;
  at("scene").querySelector("p.muted").textContent = "Loading the scene";
  at("scene").querySelector(".people").replaceChildren();
  for (const button of at("scene").querySelectorAll("[data-step]")) {
    button.disabled = !matches[place + Number(button.dataset.step)];
  }
  ask(`api/scenes/${match.row}`).then((scene) => {
    if (matches[shown] !== match) return;
    const people = scene.people.map((person) => ({
      ...person, marked: person.row === match.row,
      choose: () => { at("scene").close(); go({ ...filters(), row: String(person.row), version }); },
    }));
    outlined(at("scene").querySelector(".people"), sceneOf(match.row), scene, people,
      (person) => person.marked ? "This match: search for this person" : "Search for this person");
    const told = [`similarity ${match.similarity.toFixed(3)}`, match.image, placeOf(match)].filter(Boolean).join(" · ");
    at("scene").querySelector("p.muted").textContent = `${told}. Click a person to search for them.`;
  }).catch((error) => { at("scene").querySelector("p.muted").textContent = sentence(error.message); });
}

// Events

function chooseFiles(files) {
  const pictures = [...(files || [])].filter((file) => file.type.startsWith("image/") || !file.type);
  if (pictures.length) send(pictures[0]);
  else if (files && files.length) tellProblem("This is not a picture.", TODO[415]);
}

at("file").addEventListener("change", (event) => { send(event.target.files[0]); event.target.value = ""; });
document.addEventListener("paste", (event) => chooseFiles(event.clipboardData.files));
document.addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  chooseFiles(event.dataTransfer.files);
});
at("examples").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go({ scene: new URL(link.href).searchParams.get("scene") });
});
at("people")?.addEventListener("submit", (event) => { event.preventDefault(); go({ name: at("known").value }); });
at("whole").addEventListener("click", () => go({ ...state, whole_image: "true" }));
for (const button of document.querySelectorAll(".again")) button.addEventListener("click", () => go({}));
at("filters").addEventListener("submit", (event) => {
  event.preventDefault();
  const chosen = Object.fromEntries(FILTERS.filter((name) => at(name)).map((name) => [name, entered(at(name))]));
  go({ ...state, ...chosen });
});
at("naming").addEventListener("submit", (event) => { event.preventDefault(); go({ ...state, name: at("name").value.trim() }); });
at("close").addEventListener("click", () => at("scene").close());
at("scene").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && matches[shown + step]) openScene(shown + step);
});
for (const button of at("scene").querySelectorAll("[data-step]")) {
  button.addEventListener("click", () => openScene(shown + Number(button.dataset.step)));
}
for (const button of at("scene").querySelectorAll("[data-verdict]")) {
  button.addEventListener("click", () => { at("scene").close(); judge([matches[shown].row], button.dataset.verdict); });
}
addEventListener("resize", () => { if (!at("found").hidden) drawTimeline(); });
addEventListener("popstate", () => { readAddress(); show(); });
readAddress();
show();
