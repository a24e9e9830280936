"use strict";
// Find and diff: which statement it was, what it did, and what became of a table between two moments.

const findLink = (server, query) => `#/find/${encodeURIComponent(server)}${query ? `/${encodeURIComponent(query)}` : ""}`;

/** A value of a row as people read it. */
const cell = (value) => (value === null ? "NULL" : value === undefined ? "" : String(value));

/** Rows that were changed: what was and what is, column by column. */
function rowsTable(rows, more) {
  const line = (row) => {
    const cells = row.cells.map((c) => {
      const [was, is] = [cell(c.before), cell(c.after)];
      return `${c.column}: ${row.change === "insert" ? is : row.change === "delete" ? was : was === is || c.after === undefined ? was : `${was} → ${is}`}`;
    });
    return el("tr", {}, el("td", { text: row.change }), el("td", { class: "mono", text: row.table }), el("td", { class: "mono", text: cells.join(" · ") }));
  };
  const head = ["Change", "Table", "Row"].map((text) => el("th", { scope: "col", text }));
  return [
    el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows.map(line)))),
    ...(more ? [el("p", { class: "facts", text: `and ${more} more` })] : []),
  ];
}

const touched = (tables) => tables.map((t) => `${t.table} +${t.inserted} ~${t.updated} -${t.deleted}`).join(", ");

/** What was found, newest first, each with the way to the moment before it. */
function foundTable(server, found, more, rowsHost) {
  const rows = [...found].reverse().map((f) => {
    const words = f.statement || touched(f.tables) || f.kind;
    const see = el("button", { type: "button", text: "Rows", "aria-label": `Rows of ${f.id}` });
    see.addEventListener("click", async () => {
      rowsHost.replaceChildren(el("p", { text: "Reading the log…" }));
      try {
        const shown = await ask(`/servers/${encodeURIComponent(server)}/transactions/${encodeURIComponent(f.id)}`);
        const title = el("h2", { text: `What ${f.id} did`, tabindex: "-1" });
        rowsHost.replaceChildren(title, ...shown.queries.map((text) => el("p", {}, el("code", { text }))), ...(shown.rows.length ? rowsTable(shown.rows, shown.more) : [el("p", { text: "It changed no rows." })]));
        title.focus();
      } catch (error) {
        rowsHost.replaceChildren(el("p", { class: "trouble", role: "alert", text: error.message }));
      }
    });
    const before = el("a", { class: "button", href: restoreLink(server, `before=${f.id}`), text: "Restore to just before…", "aria-label": `Restore to just before ${words}` });
    return el("tr", {}, el("td", { text: show(f.at) }), el("td", {}, el("code", { text: words })), el("td", { class: "mono", text: f.id }), el("td", {}, el("div", { class: "row" }, before, ...(f.tables.length ? [see] : []))));
  });
  const head = ["Time", "What", "Id", ""].map((text) => el("th", { scope: "col", text }));
  return [
    el("div", { class: "wide" }, el("table", { id: "found" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows))),
    ...(more ? [el("p", { class: "facts", text: "There are more: say more exactly what is looked for." })] : []),
  ];
}

async function findPage(name, query = "") {
  const path = `/servers/${encodeURIComponent(name)}`;
  const { timeline } = await ask(`${path}/timeline`);
  const given = new URLSearchParams(query);
  const input = (id, value, placeholder) => {
    const made = el("input", { id, name: id, spellcheck: "false", autocomplete: "off", placeholder });
    made.value = value || "";
    return made;
  };
  const like = input("find-like", given.get("like"), "DROP%");
  const table = input("find-table", given.get("table"), "shop.orders");
  const since = input("find-since", given.get("since"), "-1h");
  const over = input("find-rows", "", "1000");
  over.setAttribute("inputmode", "numeric");
  const ddl = el("select", { id: "find-kind" }, el("option", { value: "", text: "anything" }), el("option", { value: "ddl", text: "definitions and accounts" }));
  const form = el("form", { id: "find-form" }, el("fieldset", {}, el("legend", { text: "Which statement was it?" }),
    el("div", { class: "row" }, field("Statement like", like), field("Table", table), field("Not before", since, "a time, or an age"), field("More rows than", over), field("Kind", ddl))),
    el("div", { class: "row" }, el("button", { text: "Find" })));
  const found = el("section", { "aria-live": "polite", "aria-label": "Found" });
  const rows = el("section", { "aria-live": "polite", "aria-label": "Rows" });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const asked = new URLSearchParams({ limit: "200" });
    for (const [key, box] of [["like", like], ["table", table], ["since", since], ["rows_over", over]]) if (box.value.trim()) asked.set(key, box.value.trim());
    if (ddl.value) asked.set("ddl", "true");
    found.replaceChildren(el("p", { text: "Looking…" }));
    rows.replaceChildren();
    try {
      const answer = await ask(`${path}/transactions?${asked}`);
      found.replaceChildren(...(answer.found.length ? foundTable(name, answer.found, answer.more, rows) : [el("p", { text: "Nothing in the archive fits." })]));
    } catch (error) {
      found.replaceChildren(el("p", { class: "trouble", role: "alert", text: error.message }));
    }
  });

  const last = timeline.spans.at(-1);
  const which = input("diff-table", given.get("table"), "shop.orders");
  const from = input("diff-from", last?.from, "2026-11-21T14:00:00Z");
  const to = input("diff-to", "latest", "latest");
  for (const box of [which, from, to]) box.required = true;
  const diffForm = el("form", { id: "diff-form" }, el("fieldset", {}, el("legend", { text: "What became of a table?" }),
    el("div", { class: "row" }, field("Table", which), field("From", from), field("To", to))),
    el("div", { class: "row" }, el("button", { text: "Compare" })));
  const differences = el("section", { "aria-live": "polite", "aria-label": "Differences" });
  diffForm.addEventListener("submit", async (event) => {
    event.preventDefault();
    differences.replaceChildren(el("p", { text: "Reading the log…" }));
    try {
      const view = await ask(`${path}/diff?${new URLSearchParams({ table: which.value.trim(), from: from.value.trim(), to: to.value.trim() })}`);
      differences.replaceChildren(el("p", { class: "headline", id: "diff-words", text: `${view.table}: ${view.inserted} rows new, ${view.updated} changed, ${view.deleted} gone` }), ...rowsTable(view.rows, view.more));
    } catch (error) {
      differences.replaceChildren(el("p", { class: "trouble", role: "alert", text: error.message }));
    }
  });
  return [el("h1", { text: `Find in ${name}` }), el("p", { class: "facts", text: "Out of the archived log alone: the protected server is not asked." }), form, found, rows, diffForm, differences];
}

/** What the check of the day has shown. */
const canaryFact = (r) => ["Last check of one block of 32", r.canary ? `${show(r.canary)}: ${r.canary_clean ? "clean" : "damage found"}` : "none yet"];

/** Saves an answer of the API as a file: a link could not carry the token. */
async function save(path, name) {
  const document_ = await ask(path);
  const url = URL.createObjectURL(new Blob([JSON.stringify(document_, null, 1)], { type: "application/json" }));
  const link = el("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
  return document_;
}

/** What was proved, and the report for auditors. */
async function verificationPage() {
  const status = await ask("/status");
  const drills = await Promise.all(status.servers.map((s) => ask(`/servers/${encodeURIComponent(s.server)}/drills`)));
  const rows = status.servers.map((s, at) => {
    const all = drills[at].drills;
    const proved = all.filter((d) => d.proved).length;
    return el("tr", {}, el("th", { scope: "row" }, el("a", { href: `#/server/${encodeURIComponent(s.server)}`, text: s.server })),
      el("td", { text: s.last_backup ? `${show(s.last_backup.completed)}: ${s.last_backup.proof || "not restored yet"}` : "no backup" }),
      el("td", { text: drillWords(s.drill) }), el("td", { text: all.length ? `${proved} of ${all.length} proved` : "-" }), el("td", { text: s.drill.due ? show(s.drill.due) : "never" }),
      el("td", {}, ...(s.trust ? [el("strong", { text: `${s.trust.figure} of 100` }), el("ul", {}, ...[...s.trust.parts.map((p) => `${p.points.toFixed(1)} of ${p.of}: ${p.says}`), ...(s.trust.limited ? [s.trust.limited] : [])].map((text) => el("li", { text })))] : ["-"])));
  });
  const head = ["Server", "Last backup", "Last drill", "Drills", "Next", "Trust"].map((text) => el("th", { scope: "col", text }));
  const r = status.repository;
  const facts = [["Last whole check", r.checked ? `${show(r.checked)}: ${r.clean ? "clean" : "damage found"}` : "none yet"], ["Next", r.check_due ? show(r.check_due) : "never"], canaryFact(r)];
  const stretch = el("select", { id: "report-stretch" });
  for (const [value, text] of [["-31d", "a month"], ["-92d", "a quarter"], ["-366d", "a year"]]) stretch.append(el("option", { value, text }));
  stretch.value = "-92d";
  const said = el("div", { id: "report-words", "aria-live": "polite" });
  const button = el("button", { type: "button", text: "Save the report" });
  button.addEventListener("click", async () => {
    said.replaceChildren(el("p", { text: "Writing it…" }));
    try {
      const report = await save(`/report?from=${stretch.value}`, `holdfast-report-${new Date().toISOString().slice(0, 10)}.json`);
      const lines = report.servers.map((s) => {
        const proofs = s.proofs.filter((p) => p.proved).length;
        const covered = s.days.filter((d) => d.restorable_percent >= 99.9).length;
        return el("li", { text: `${s.server}: ${s.backups.length} backups, ${covered} of ${s.days.length} days whole, ${proofs} of ${s.proofs.length} restores and drills proved` });
      });
      said.replaceChildren(el("p", { class: report.audit.intact ? "" : "trouble", text: `${report.audit.entries.length} requests are noted; ${report.audit.intact ? "the audit log is whole" : `the audit log was changed at line ${report.audit.broken_at_line}`}.` }), el("ul", {}, ...lines));
    } catch (error) {
      said.replaceChildren(el("p", { class: "trouble", role: "alert", text: error.message }));
    }
  });
  const canary = el("button", { type: "button", text: "Check one block of 32 now" });
  canary.addEventListener("click", () => act("/canaries", { method: "POST" }, "The check is queued."));
  return [el("h1", { text: "Verification" }),
    el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows))),
    el("h2", { text: "Repository" }), el("div", { class: "wide" }, el("table", {}, el("tbody", {}, ...facts.map(([a, b]) => el("tr", {}, el("th", { scope: "row", text: a }), el("td", { text: b })))))), el("div", { class: "row" }, canary),
    el("h2", { text: "Report for auditors" }), el("p", { class: "facts", text: "Policies, what could be restored on each day, proofs, failures, and who asked for what: one file." }),
    el("div", { class: "row" }, field("Of", stretch), button), said];
}
