// Keeps an open page current: it asks for the page again, and replaces the parts that have changed.
// Without this script the page is reloaded every half a minute (see the noscript element).

const EVERY = 2000; // ms between two looks
const SOON = 300; // ms after a step of mail; further ones of that time are seen together
const STEPS = ["accepted", "delivered", "deferred", "bounced", "expired", "removed", "held"];
const PATIENCE = 10000; // ms for an answer

const main = document.querySelector("main");
const news = document.getElementById("news");
const stale = document.getElementById("stale");
let since = new Date(); // of the last answer
let told = verdict(document);

function verdict(page) {
  return page.querySelector(".verdict h2")?.textContent ?? "";
}

// Whether the reader is about to type or to press something in a part.
function busy(part) {
  const active = document.activeElement;
  return part.contains(active) && active.matches("input, select, button, textarea");
}

function replace(old, fresh) {
  const open = [...old.querySelectorAll("details[open][id]")].map((each) => each.id);
  const active = old.contains(document.activeElement) ? document.activeElement : null;
  const place = active && [...old.querySelectorAll("a, summary")].indexOf(active);
  for (const id of open) fresh.querySelector("#" + CSS.escape(id))?.setAttribute("open", "");
  if (old.isEqualNode(fresh)) return;
  old.replaceWith(fresh);
  if (active) fresh.querySelectorAll("a, summary")[place]?.focus({ preventScroll: true });
}

function show(page) {
  const fresh = [...page.querySelector("main").children];
  const wanted = new Set(fresh.map((each) => each.id));
  for (const old of [...main.children]) {
    if (!wanted.has(old.id) && !busy(old)) old.remove();
  }
  let before = null;
  for (const part of fresh) {
    const old = [...main.children].find((each) => each.id === part.id);
    const adopted = document.adoptNode(part);
    if (!old) {
      if (before) before.after(adopted);
      else main.prepend(adopted);
      before = adopted;
    } else {
      if (!busy(old)) replace(old, adopted);
      before = [...main.children].find((each) => each.id === part.id);
    }
  }
  const header = page.getElementById("state");
  if (header) document.getElementById("state")?.replaceWith(document.adoptNode(header));
  document.title = page.title;
  const now = verdict(document);
  if (now !== told) news.textContent = told = now;
}

async function look() {
  const answer = await fetch(location.href, {
    headers: { Accept: "text/html" },
    credentials: "same-origin",
    signal: AbortSignal.timeout(PATIENCE),
  });
  if (answer.redirected) return location.assign(answer.url); // the login has ended
  const type = answer.headers.get("Content-Type") ?? "";
  if (!answer.ok || !type.startsWith("text/html")) throw new Error(String(answer.status));
  show(new DOMParser().parseFromString(await answer.text(), "text/html"));
  since = new Date();
  stale.hidden = true;
}

let timer;

async function again() {
  timer = undefined;
  if (!document.hidden) {
    try {
      await look();
    } catch {
      const time = since.toISOString().slice(11, 19);
      const text = `This page is of ${time} UTC: the MTA does not answer.`;
      if (stale.textContent !== text) stale.textContent = text;
      stale.hidden = false;
    }
  }
  timer = setTimeout(again, EVERY);
}

// With a login, each step of mail is told at once.
function listen() {
  const source = new EventSource("/v1/events");
  let soon = false;
  const step = () => {
    if (soon || timer === undefined) return;
    soon = true;
    setTimeout(() => {
      soon = false;
      if (timer === undefined) return;
      clearTimeout(timer);
      again();
    }, SOON);
  };
  for (const each of STEPS) source.addEventListener(each, step);
  source.onopen = () => { main.dataset.events = "open"; };
}

if (main?.dataset.live !== undefined) {
  timer = setTimeout(again, EVERY);
  if (main.dataset.events !== undefined) listen();
}
