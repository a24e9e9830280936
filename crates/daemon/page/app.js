"use strict";
// The page. Everything it shows and does goes through /api/v1; text is only ever set as text.

const main = document.getElementById("main");
const live = document.getElementById("live");
let token = sessionStorage.getItem("token") || "";
let drawn = 0;
/** Called with each event: its kind and its data. */
const watchers = new Set();

/** An element with attributes, `text`, and children. */
function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") element.textContent = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const show = (time) => (time ? new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }) : "-");

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let at = 0;
  while (bytes >= 1000 && at < units.length - 1) (bytes /= 1024), at++;
  return `${at ? bytes.toPrecision(3) : bytes} ${units[at]}`;
}

class Problem extends Error {}

/** A key for a request that is to be done once, however often it is sent. */
const newKey = () => (crypto.randomUUID ? crypto.randomUUID() : `${Date.now()}-${Math.random()}`);

async function ask(path, options = {}) {
  const headers = { ...(options.headers || {}) };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (options.body) headers["Content-Type"] = "application/json";
  const answer = await fetch(`/api/v1${path}`, { ...options, headers });
  if (answer.status === 401) {
    await login(token ? "That token is not known." : "");
    return ask(path, options);
  }
  const body = await answer.json();
  if (!answer.ok) throw new Problem(body.detail + (body.next ? ` Next: ${body.next}.` : ""));
  return body;
}

let asking;
function login(trouble) {
  asking ||= new Promise((done) => {
    const dialog = document.getElementById("login");
    document.getElementById("login-trouble").textContent = trouble;
    const form = document.getElementById("login-form");
    const field = document.getElementById("token");
    field.value = "";
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    form.onsubmit = () => {
      token = field.value.trim();
      sessionStorage.setItem("token", token);
      asking = undefined;
      done();
    };
    dialog.showModal();
    field.focus();
  });
  return asking;
}

const word = { green: "safe", amber: "look", red: "not safe" };

/** What drills have shown, in a few words. */
function drillWords(drill) {
  if (!drill.last) return drill.due ? `first drill ${show(drill.due)}` : "no drills";
  const { at, proved, total_seconds: took, target } = drill.last;
  return `last drill ${show(at)}: ${target} ${proved ? "proved" : "NOT proved"} in ${span(took)}`;
}

/** Which server a backup was copied from, where replicas were named. */
function copiedWords(backup) {
  if (backup.copied_from) return ` from the replica ${backup.copied_from}`;
  return backup.not_from_replica ? ` from the server itself: ${backup.not_from_replica}` : "";
}

function serverCard(server) {
  const lag = server.stream.lag_seconds;
  const facts = [
    server.engine,
    server.stream.state === "following" ? `log ${lag === null ? "catching up" : `${lag.toFixed(1)} s behind`}` : `log: ${server.stream.state}`,
    server.last_backup ? `last backup ${show(server.last_backup.completed)}${copiedWords(server.last_backup)}` : "no backup",
    server.next_base.at ? `next ${show(server.next_base.at)}` : "none due",
    drillWords(server.drill),
    ...(server.trust ? [`trust ${server.trust.figure} of 100`] : []),
    ...(server.origin ? [`restored from ${server.origin.server}${server.origin.moment ? ` as it was at ${show(server.origin.moment)}` : ""}`] : []),
    ...(server.locked ? ["locked: nothing of it may be taken away"] : []),
    ...(server.estimate ? [`a restore takes ${estimateWords(server.estimate)}${server.rto_seconds ? `, and may take ${span(server.rto_seconds)}` : ""}`] : []),
  ];
  return el("li", { class: `card ${server.level}` },
    el("h2", {}, el("a", { href: `#/server/${encodeURIComponent(server.server)}`, text: server.server }), el("span", { class: "word", text: word[server.level] })),
    el("p", { class: "headline", text: server.headline }),
    el("p", { class: "facts", text: facts.join(" · ") }),
    ...(server.worries.length ? [el("ul", { class: "worries" }, ...server.worries.map((text) => el("li", { text })))] : []),
  );
}

async function dashboard() {
  const status = await ask("/status");
  const cards = status.servers.map(serverCard);
  const content = [el("h1", { text: "Servers" })];
  if (status.repository.damage) content.push(el("p", { class: "trouble", role: "alert", text: `The repository is damaged: ${status.repository.damage}` }));
  content.push(cards.length ? el("ul", { class: "cards" }, ...cards) : el("p", { text: "No server is protected yet: holdfast server add NAME …" }));
  if (status.jobs.length) content.push(el("h2", { text: "At work" }), jobTable(status.jobs));
  return content;
}

function standing(job) {
  if (job.standing !== "running" || !job.progress) return el("span", { text: job.standing });
  const { phase, done, total, bytes, percent, rate, eta_seconds: left } = job.progress;
  const unit = (n) => (bytes ? size(n) : String(Math.round(n)));
  const pace = [percent === null || percent === undefined ? "" : `${percent.toFixed(0)} %`, rate ? `${unit(rate)}/s` : "", left ? `${span(left)} left` : ""].filter(Boolean).join(", ");
  const box = el("span", {}, el("span", { text: `${phase || "running"} ${done ? unit(done) : ""}${total ? ` of ${unit(total)}` : ""}${pace ? ` (${pace})` : ""} ` }));
  if (total) box.append(el("progress", { max: String(total), value: String(done), "aria-label": `job ${job.id}` }));
  return box;
}

function jobTable(jobs) {
  const rows = jobs.map((job) => {
    const action = el("td");
    if (job.standing === "running" || job.standing === "queued") {
      const button = el("button", { type: "button", text: "Stop", "aria-label": `Stop job ${job.id}` });
      button.addEventListener("click", () => act(`/jobs/${job.id}`, { method: "DELETE" }, `Job ${job.id} is asked to stop.`));
      action.append(button);
    }
    const outcome = job.failure ? `${job.failure.message}${job.failure.next ? ` Next: ${job.failure.next}.` : ""}` : "";
    return el("tr", { "data-job": String(job.id) },
      el("td", { text: String(job.id) }), el("td", { text: job.kind }), el("td", { text: job.server || "-" }),
      el("td", { text: job.by }), el("td", { text: show(job.started || job.created) }),
      el("td", { class: "standing" }, standing(job), ...(outcome ? [el("div", { class: "trouble", text: outcome })] : [])), action);
  });
  const head = ["Job", "Kind", "Server", "By", "Begun", "Standing", ""].map((text) => el("th", { scope: "col", text }));
  return el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)));
}

async function act(path, options, said) {
  try {
    await ask(path, options);
    live.textContent = said;
    await drawChanged();
  } catch (error) {
    live.textContent = error.message;
  }
}

/**
 * Draws what was changed: now, and when the daemon has looked at its servers again (it may be in the middle of an earlier
 * look). Whoever does something else meanwhile is not drawn over.
 */
async function drawChanged() {
  let looks = 0;
  const place = location.hash;
  const stop = () => {
    watchers.delete(looked);
    for (const kind of ["click", "input"]) removeEventListener(kind, stop, true);
  };
  const looked = (kind) => {
    if (kind !== "board") return;
    if (location.hash === place) draw(false);
    if (++looks === 2 || location.hash !== place) stop();
  };
  watchers.add(looked);
  for (const kind of ["click", "input"]) addEventListener(kind, stop, true);
  await draw(false);
}

async function jobsPage() {
  const { jobs } = await ask("/jobs");
  return [el("h1", { text: "Jobs" }), jobs.length ? jobTable(jobs) : el("p", { text: "There was none yet." })];
}

/** A transaction of the log: its id, when it was committed, what it does. */
const transaction = (facts) => (facts ? [facts.gtid || facts.position, facts.committed_us && show(facts.committed_us / 1000), facts.summary].filter(Boolean).join("  ") : "-");

function cutView(host, server, plan, target, query) {
  const card = (title, text) => el("section", {}, el("h3", { text: title }), el("div", { class: "mono", text }));
  host.replaceChildren(el("div", { class: "cut" },
    card("Last transaction kept", plan.last_kept ? transaction(plan.last_kept) : "none after the backup"),
    card("First left out", plan.first_left_out ? transaction(plan.first_left_out) : "none"),
    card("From", `backup ${plan.base}, ${size(plan.bytes)}${plan.log ? `; ${plan.log.size.transactions} transactions of log, ${size(plan.log.size.bytes)}` : ""}`),
    card("A restore takes", estimateWords(plan.estimate)),
    card("On the command line", `holdfast restore ${server} ${target} --into DIR`)),
    el("div", { class: "row" }, el("a", { class: "button", href: restoreLink(server, query), text: "Restore to here…" })));
}

async function serverPage(name) {
  const path = `/servers/${encodeURIComponent(name)}`;
  const [server, history, kept, me] = await Promise.all([ask(path), ask(`${path}/timeline`), ask(`${path}/retention`), ask("/me")]);
  const content = [el("h1", { text: name }), el("ul", { class: "cards" }, serverCard(server))];
  const button = (text, action) => {
    const made = el("button", { type: "button", text });
    made.addEventListener("click", action);
    return made;
  };
  const findings = el("div", { "aria-live": "polite" });
  content.push(el("div", { class: "row" },
    button("Back up now", () => act(`${path}/backups`, { method: "POST", body: "{}" }, "The backup is queued.")),
    button("Back up as…", () => namedBackup(name)),
    button(server.paused ? "Resume" : "Pause", () => act(`${path}/${server.paused ? "resume" : "pause"}`, { method: "POST" }, server.paused ? "Resumed." : "Paused.")),
    el("a", { class: "button", href: restoreLink(name), text: "Restore…" }),
    el("a", { class: "button", href: findLink(name), text: "Find…" }),
    button("Drill now", () => act(`${path}/drills`, { method: "POST" }, "The drill is queued.")),
    ...(me.role === "admin" ? [button(server.locked ? "Unlock…" : "Lock…", () => serverLock(server))] : []),
    button("Doctor", async () => {
      findings.replaceChildren(el("p", { text: "Looking…" }));
      try {
        const answer = await ask(`${path}/doctor`);
        const colour = { ok: "green", warning: "amber", failed: "red" };
        const rows = answer.findings.map((f) => el("tr", {}, el("td", {}, el("span", { class: `word ${colour[f.grade]}`, text: f.grade })), el("td", { text: f.probe }), el("td", {}, el("div", { text: f.found }), ...(f.fix ? [el("code", { text: f.fix })] : []))));
        findings.replaceChildren(el("div", { class: "wide" }, el("table", {}, el("tbody", {}, ...rows))));
      } catch (error) {
        findings.replaceChildren(el("p", { class: "trouble", text: error.message }));
      }
    })), findings);

  content.push(el("h2", { text: "Timeline" }));
  const host = el("div", { class: "timeline" });
  const cut = el("div", { "aria-live": "polite" });
  let newest = 0;
  drawTimeline(host, history, async (at, before) => {
    const turn = ++newest;
    const time = new Date(at).toISOString();
    const [key, value] = before ? ["before", before] : ["to", time];
    const query = `${key}=${encodeURIComponent(value)}`;
    try {
      const plan = await ask(`${path}/at?${query}`);
      if (turn === newest) cutView(cut, name, plan, `--${key} ${value}`, `${key}=${value}`);
    } catch (error) {
      if (turn === newest) cut.replaceChildren(el("p", { class: "trouble", text: error.message }));
    }
  });
  content.push(host, cut, ...historySection(`${path}/history`, SERVER_CHARTS), el("h2", { text: "Backups" }));
  content.push(backupTable(history.timeline.backups, kept.retention.kept, me));
  return content;
}

async function storagePage() {
  const { repository: r, servers } = await ask("/status");
  // What is held, beside what it took: the rest was stored once for many.
  const saved = (data, stored) => (data > 0 ? `${Math.max(0, 100 - (100 * stored) / data).toFixed(1)} %` : "-");
  const columns = ["Server", "Files in its backups", "Stored for them", "Saved", "Log since the last"].map((text) => el("th", { scope: "col", text }));
  const lines = servers.map((s) => el("tr", {}, el("td", { text: s.server }), el("td", { text: size(s.data_bytes) }), el("td", { text: size(s.stored_bytes) }), el("td", { text: saved(s.data_bytes, s.stored_bytes) }), el("td", { text: size(s.log_bytes) })));
  const each = [el("h2", { text: "Servers" }), el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...columns)), el("tbody", {}, ...lines)))];
  const facts = [
    ["Place", r.place], ["Id", r.id], ["Free", `${size(r.free_bytes)} of ${size(r.total_bytes)}`], ["Backups", String(r.backups)],
    ["Files in them", size(r.data_bytes)], ["Stored for them", size(r.stored_bytes)], ["Saved by storing once", saved(r.data_bytes, r.stored_bytes)],
    ["Last whole check", r.checked ? `${show(r.checked)}: ${r.clean ? "clean" : "damage found"}` : "none yet"], ["Next", r.check_due ? show(r.check_due) : "never"],
    canaryFact(r),
    ["Last prune", r.pruned ? `${show(r.pruned)}: ${size(r.pruned_bytes)} given back` : "none yet"],
  ];
  const check = el("button", { type: "button", text: "Check now" });
  check.addEventListener("click", () => act("/checks", { method: "POST" }, "The check is queued."));
  const prune = el("button", { type: "button", text: "Prune now" });
  prune.addEventListener("click", () => act("/prunes", { method: "POST" }, "The prune is queued."));
  return [el("h1", { text: "Storage" }), el("div", { class: "wide" }, el("table", {}, el("tbody", {}, ...facts.map(([a, b]) => el("tr", {}, el("th", { scope: "row", text: a }), el("td", { text: b })))))), el("div", { class: "row" }, check, prune), ...each, ...historySection("/history", REPOSITORY_CHARTS, forecast)];
}

/** The configuration as it holds now; it is changed in its file. */
async function settingsPage() {
  const settings = await ask("/settings");
  const words = (value) => (Array.isArray(value) ? value.map(words).join(", ") || "none" : value === null || value === undefined ? "none" : typeof value === "object" ? Object.entries(value).map(([k, v]) => `${k} ${words(v)}`).join(", ") || "none" : String(value));
  const rows = (entries) => el("div", { class: "wide" }, el("table", {}, el("tbody", {}, ...entries.map(([name, value]) => el("tr", {}, el("th", { scope: "row", text: name }), el("td", { text: words(value) }))))));
  const { policies, servers, checks, prune, drills, read, last_reload_ok: ok, ...rest } = settings;
  const heads = ["Server", "Policy", "Commits wait"].map((text) => el("th", { scope: "col", text }));
  const lines = servers.map((s) => el("tr", {}, el("td", { text: s.server }), el("td", { text: s.policy }), el("td", { text: s.semi_sync ? "yes" : "no" })));
  return [
    el("h1", { text: "Settings" }),
    el("p", { class: ok ? "" : "trouble", text: ok ? `As read from ${settings.file} at ${show(read)}.` : `The file ${settings.file} can't be used as it is now: what holds was read at ${show(read)}.` }),
    el("p", { text: "They are changed in that file, and hold when the daemon reads it again: systemctl reload holdfastd." }),
    el("h2", { text: "Servers" }), el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...lines))),
    ...Object.entries(policies).flatMap(([name, policy]) => [el("h2", { text: `Policy ${name}` }), rows(Object.entries(policy))]),
    ...[["Checks", checks], ["Prunes", prune], ["Drills", drills], ["The rest", rest]].flatMap(([name, values]) => [el("h2", { text: name }), rows(Object.entries(values))]),
  ];
}

/** What waits for a second person, with what he can do. */
function waitingTable(requests) {
  const rows = requests.map((request) => {
    const button = (verb, word) => {
      const made = el("button", { type: "button", text: verb, "aria-label": `${verb} request ${request.id}` });
      made.addEventListener("click", () => act(`/approvals/${request.id}/${verb.toLowerCase()}`, { method: "POST" }, `Request ${request.id} is ${word}.`));
      return made;
    };
    return el("tr", { "data-request": String(request.id) }, el("td", { text: String(request.id) }), el("td", { text: request.text }), el("td", { text: request.by }),
      el("td", { text: show(request.until) }), el("td", {}, button("Approve", "approved"), button("Reject", "rejected")));
  });
  const head = ["Request", "What", "Asked by", "Until", ""].map((text) => el("th", { scope: "col", text }));
  return el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)));
}

async function auditPage() {
  const [audit, { requests }] = await Promise.all([ask("/audit"), ask("/approvals")]);
  const waiting = requests.filter((request) => request.decision === "waiting");
  const rows = audit.entries.map((e) => el("tr", {}, el("td", { text: String(e.number) }), el("td", { text: show(e.at) }), el("td", { text: e.who }), el("td", {}, el("code", { text: e.what })), el("td", { text: e.outcome })));
  const whole = audit.intact ? "Every entry follows from the one before." : `The log was changed at line ${audit.broken_at_line}.`;
  const decide = waiting.length ? [el("h2", { text: "Waiting for a second person" }), waitingTable(waiting), el("h2", { text: "Entries" })] : [];
  return [el("h1", { text: "Audit" }), ...decide, el("p", { class: audit.intact ? "" : "trouble", text: whole }), el("div", { class: "wide" }, el("table", {}, el("tbody", {}, ...rows)))];
}

/** What a control is called, by which it is found again in a new drawing. */
const spoken = (e) => [e.tagName, e.id, e.getAttribute("aria-label") || e.textContent].join(" ");

/** Draws the page that the address names. Only a change of the address moves the focus. */
async function draw(moved = true) {
  const turn = ++drawn;
  const parts = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const page = parts[0] === "server" ? serverPage(parts[1]) : parts[0] === "restore" ? restorePage(parts[1], parts[2]) : parts[0] === "find" ? findPage(parts[1], parts[2]) : parts[0] === "verification" ? verificationPage() : parts[0] === "jobs" ? jobsPage() : parts[0] === "storage" ? storagePage() : parts[0] === "settings" ? settingsPage() : parts[0] === "audit" ? auditPage() : dashboard();
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.getAttribute("href") === (location.hash || "#/");
    here ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  let content;
  try {
    content = await page;
  } catch (error) {
    content = [el("p", { class: "trouble", role: "alert", text: error.message })];
  }
  if (turn !== drawn) return;
  const stood = main.contains(document.activeElement) ? document.activeElement : undefined;
  main.replaceChildren(...content);
  // Who works by keyboard stays where he was.
  if (stood && !moved) [...main.querySelectorAll("a, button, input, select, summary")].find((e) => spoken(e) === spoken(stood))?.focus();
  document.title = `${main.querySelector("h1")?.textContent || "Holdfast"} – Holdfast`;
  if (moved) main.focus();
}

/** Tells an event to whoever watches; true if the page is to look again because of it. */
function told(piece) {
  const line = (name) => piece.split("\n").find((l) => l.startsWith(`${name}: `))?.slice(name.length + 2);
  const kind = line("event");
  if (!kind) return false;
  let data = {};
  try {
    data = JSON.parse(line("data"));
  } catch {
    // What can't be read is a reason to look again.
  }
  for (const watcher of [...watchers]) watcher(kind, data);
  if (kind !== "progress") return true;
  const place = main.querySelector(`[data-job="${Number(data.id)}"] .standing`);
  place?.firstChild?.replaceWith(standing({ id: data.id, standing: "running", progress: data.progress }));
  return false;
}

/** Events say when to look again; the server page is left alone while somebody moves its slider. */
async function listen() {
  for (;;) {
    try {
      const answer = await fetch("/api/v1/events", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
      if (!answer.ok) throw new Error();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = ""; ; ) {
        const { value, done } = await reader.read();
        if (done) break;
        const pieces = (rest + value).split("\n\n");
        rest = pieces.pop();
        const heard = pieces.filter(told).length > 0;
        if (heard && !/^#\/(server|restore|find|storage|settings|verification)/.test(location.hash) && !main.contains(document.activeElement?.closest("button, input"))) await draw(false);
      }
    } catch {
      live.textContent = "The daemon does not answer; trying again.";
    }
    await new Promise((next) => setTimeout(next, 3000));
  }
}

addEventListener("hashchange", () => draw());
draw(false).then(listen);
