"use strict";
// The restore wizard: what, when, where; the plan; the typed name; how far it is; what is left to do by hand.

/** The wizard's address for a moment of a server. `query` is `to=TIME` or `before=ID`. */
const restoreLink = (server, query) => `#/restore/${encodeURIComponent(server)}${query ? `/${encodeURIComponent(query)}` : ""}`;

/** Seconds for a person. */
function span(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** "about 9 min (7 min to 14 min; 12 restores measured)" */
function estimateWords(made) {
  if (!made) return "not known yet: no restore of this server was proved";
  const words = `about ${span(made.seconds)} (${span(made.seconds_min)} to ${span(made.seconds_max)}; ${made.restores} measured)`;
  return made.leaves_out ? `${words}, without ${made.leaves_out}` : words;
}

/** A field with its label. */
function field(label, input, hint) {
  return el("label", {}, el("span", { text: label }), input, ...(hint ? [el("span", { class: "facts", text: hint })] : []));
}

function choice(name, options, chosen) {
  const select = el("select", { name, id: `restore-${name}` });
  for (const [value, text] of options) {
    const option = el("option", { value, text });
    if (value === chosen) option.selected = true;
    select.append(option);
  }
  return select;
}

const fact = (name, ...value) => el("tr", {}, el("th", { scope: "row", text: name }), el("td", {}, ...value));

function planTable(plan) {
  const rows = [
    fact("Target", el("span", { text: plan.target })),
    fact("Last transaction kept", el("span", { class: "mono", text: plan.last_kept ? transaction(plan.last_kept) : "none after the backup" })),
    fact("First left out", el("span", { class: "mono", text: plan.first_left_out ? transaction(plan.first_left_out) : "none" })),
    fact("From", el("span", { text: `backup ${plan.base} of ${show(plan.base_finished)}, ${size(plan.bytes)}` })),
    fact("Log", el("span", { text: plan.log ? `${plan.log.size.transactions} transactions, ${size(plan.log.size.bytes)}` : "none is replayed" })),
    fact("Takes", el("span", { id: "plan-estimate", text: estimateWords(plan.estimate) })),
    fact("Needs", el("span", { text: `${size(plan.space_needed)} free for ${plan.into}` })),
    fact("Server program", el("span", { class: plan.engine.startsWith("MISSING") ? "trouble" : "", text: plan.engine })),
  ];
  for (const text of plan.not_restored) rows.push(fact("Note", el("span", { text })));
  for (const text of plan.passed_over) rows.push(fact("Not used", el("span", { text })));
  return el("div", { class: "wide" }, el("table", { id: "plan" }, el("tbody", {}, ...rows)));
}

/** What a finished restore leaves to do, from its result. */
function checklist(job, asked) {
  const done = job.result;
  if (job.standing === "cancelled") return [el("p", { text: "The restore was stopped. The same restore into the same folder goes on where it was." })];
  if (!done) return [el("p", { class: "trouble", role: "alert", text: job.failure ? `${job.failure.message}${job.failure.next ? ` Next: ${job.failure.next}.` : ""}` : "It ended without a result." })];
  const into = done.into || done.folder;
  const steps = [
    ["done", `Proved in ${(done.phases || []).filter((p) => p.name === "total").map((p) => span(p.micros / 1e6)).join("")}`],
    ...(done.evidence || []).map((text) => ["done", text]),
    ...(done.not_checked || []).map((text) => ["look", `Not checked: ${text}`]),
    ...(done.missing || []).map((text) => ["look", `Not restored: ${text}`]),
    ...(asked.tables && done.socket ? [
    ["todo", `Compare: #/find/${asked.server} says what became of ${asked.tables.join(", ")} since`],
    ["todo", `Copy back what you need: mysqldump --socket ${done.socket} ${asked.tables[0].split(":")[0].replace(".", " ")} | mysql …`]] : []),
    ...(done.start_with || done.socket ? [["todo", done.socket ? `Look at the data: it is read-only, at ${done.socket}${done.port ? ` and 127.0.0.1:${done.port}` : ""}` : `Start it to look at the data: ${done.start_with}`],
    ["todo", `Hand it over, which makes it writable: holdfast restore finish ${into}`],
    ["todo", "Point the clients to it, and add it as a server to be protected: holdfast server add"]] : [
    ["todo", `Take what you need out of ${into}`]]),
  ];
  const mark = { done: "✓", look: "!", todo: "☐" };
  return [
    el("p", { class: "headline", text: `Restored to ${done.reached || done.plan?.target} in ${into}` }),
    el("ul", { class: "checklist", id: "checklist" }, ...steps.map(([kind, text]) => el("li", { class: kind }, el("span", { class: "mark", "aria-hidden": "true", text: mark[kind] }), el("span", { text })))),
  ];
}

/** Follows the restore's job until it ends: drawn anew by its events. */
async function followRestore(host, id, asked) {
  const line = el("p", { role: "status", id: "restore-progress" });
  const notes = el("ul", { class: "facts" });
  const stop = el("button", { type: "button", text: "Stop" });
  stop.addEventListener("click", () => act(`/jobs/${id}`, { method: "DELETE" }, `Job ${id} is asked to stop.`));
  host.replaceChildren(el("h2", { text: `Restoring: job ${id}`, tabindex: "-1" }), line, el("div", { class: "row" }, stop), notes);
  host.querySelector("h2").focus();
  const draw = (job) => {
    line.replaceChildren(standing(job));
    notes.replaceChildren(...(job.progress?.notes || []).slice(-5).map((text) => el("li", { text })));
    if (job.standing === "running" || job.standing === "queued") return;
    watchers.delete(watcher);
    host.replaceChildren(el("h2", { text: job.standing === "done" ? "Restored and proved" : "Not restored", tabindex: "-1" }), ...checklist(job, asked));
    host.querySelector("h2").focus();
  };
  const look = async () => draw(await ask(`/jobs/${id}`));
  const watcher = (kind, data) => {
    if (!host.isConnected) watchers.delete(watcher);
    else if (kind === "progress" && data.id === id) draw({ id, standing: "running", progress: data.progress });
    else if (kind === "missed" || (kind === "job" && data.id === id)) look();
  };
  watchers.add(watcher);
  await look();
}

async function restorePage(name, query = "") {
  const [status, history] = await Promise.all([ask("/status"), ask(`/servers/${encodeURIComponent(name)}/timeline`)]);
  const places = status.restore_into;
  const content = [el("h1", { text: `Restore ${name}` })];
  if (!places.length) {
    content.push(el("p", { class: "trouble", role: "alert", text: "The configuration names no folder that restores may be made below: restore_into = [\"/srv/restored\"]. The command line is not bound to one: holdfast restore." }));
    return content;
  }
  const [given, at] = query ? [query.split("=")[0], query.slice(query.indexOf("=") + 1)] : ["latest", ""];
  const last = history.timeline.spans.at(-1);

  // When.
  const when = choice("when", [["latest", "the latest moment"], ["to", "a moment"], ["before", "just before a transaction"], ["fastest", "the newest backup as it is"]], given);
  const moment = el("input", { name: "moment", id: "restore-moment", spellcheck: "false", autocomplete: "off" });
  moment.value = at || last?.until || "";
  const momentField = field("Which", moment);
  const flags = el("datalist", { id: "restore-flags" });
  for (const flag of history.flags.slice(-50).reverse()) flags.append(el("option", { value: flag.id, text: `${show(flag.at)} ${flag.statement || flag.kind}` }));
  const whenChanged = () => {
    const asks = when.value === "to" || when.value === "before";
    momentField.hidden = !asks;
    moment.required = asks;
    when.value === "before" ? moment.setAttribute("list", "restore-flags") : moment.removeAttribute("list");
    if (when.value === "to" && Number.isNaN(Date.parse(moment.value))) moment.value = last?.until || "";
  };
  when.addEventListener("change", whenChanged);
  whenChanged();

  // Where.
  const place = choice("place", places.map((p) => [p, p]), places[0]);
  const stamp = new Date().toISOString().slice(0, 16).replace(/[-:]/g, "").replace("T", "-");
  const folder = el("input", { name: "folder", id: "restore-folder", required: "", pattern: "[^\\/]+", spellcheck: "false", autocomplete: "off" });
  folder.value = `${name.replace(/[^A-Za-z0-9._\-]/g, "_")}-${stamp}`;
  const start = choice("start", [["yes", "leave it running, read-only"], ["no", "shut it down"]], "yes");
  const prove = choice("prove", [["quick", "quick: no table is read as a whole"], ["standard", "standard: and the tables that the log changed"], ["full", "full: every table"]], "standard");

  // What. A folder has no tables.
  const what = choice("what", [["all", "the whole server"], ["tables", "some tables"]], "all");
  const tables = el("input", { name: "tables", id: "restore-tables", spellcheck: "false", autocomplete: "off", placeholder: "shop.orders" });
  const tablesField = field("Which", tables, "DATABASE.TABLE, or DATABASE.TABLE:NEW for another name; commas between them");
  const whatChanged = () => {
    tables.required = what.value === "tables";
    tablesField.hidden = !tables.required;
  };
  what.addEventListener("change", whatChanged);
  whatChanged();
  const hasTables = status.servers.find((s) => s.server === name)?.stream.state !== "none";
  const parts = el("fieldset", {}, el("legend", { text: "What" }), el("div", { class: "row" }, field("Restore", what), tablesField));
  parts.hidden = !hasTables;

  const form = el("form", { id: "restore-form" }, parts,
    el("fieldset", {}, el("legend", { text: "When" }), el("div", { class: "row" }, field("To", when), momentField), flags),
    el("fieldset", {}, el("legend", { text: "Where" }), el("div", { class: "row" }, field("Below", place), field("In a new folder", folder), field("Afterwards", start), field("Proof", prove))),
    el("div", { class: "row" }, el("button", { text: "Show the plan" })));
  const planned = el("section", { "aria-live": "polite", "aria-label": "Plan" });
  const progress = el("section", { "aria-label": "Progress" });

  const wanted = () => {
    const target = when.value === "to" || when.value === "before" ? { [when.value]: moment.value.trim() } : { to: when.value };
    const some = what.value === "tables" ? { tables: tables.value.split(/[,\s]+/).filter(Boolean) } : {};
    return { server: name, ...target, ...some, into: `${place.value}/${folder.value.trim()}`, start: start.value === "yes", prove: prove.value };
  };
  // A plan is about what was asked; what is changed since has none.
  form.addEventListener("input", () => planned.replaceChildren());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const asked = wanted();
    planned.replaceChildren(el("p", { text: "Planning; nothing is changed…" }));
    let plan;
    try {
      plan = await ask("/restore-plans", { method: "POST", body: JSON.stringify(asked) });
    } catch (error) {
      planned.replaceChildren(el("p", { class: "trouble", role: "alert", text: error.message }));
      return;
    }
    const typed = el("input", { id: "restore-confirm", autocomplete: "off", spellcheck: "false" });
    const go = el("button", { type: "submit", text: "Restore", disabled: "" });
    const trouble = el("p", { class: "trouble", role: "alert" });
    typed.addEventListener("input", () => (go.disabled = typed.value !== name));
    // The same press twice is one restore.
    const key = newKey();
    const confirm = el("form", { id: "confirm-form" }, field(`Type the server's name, ${name}, to begin`, typed), go, trouble);
    confirm.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (typed.value !== name) return;
      go.disabled = true;
      try {
        const job = await ask("/restores", { method: "POST", body: JSON.stringify(asked), headers: { "Idempotency-Key": key } });
        form.hidden = true;
        confirm.hidden = true;
        await followRestore(progress, job.id, asked);
      } catch (error) {
        trouble.textContent = error.message;
        go.disabled = false;
      }
    });
    planned.replaceChildren(el("h2", { text: "Plan", tabindex: "-1" }), planTable(plan), confirm);
    planned.querySelector("h2").focus();
  });
  content.push(el("p", { class: "facts", text: "The restore goes into a new folder of the daemon's host. The protected server is not touched." }), form, planned, progress);
  return content;
}
