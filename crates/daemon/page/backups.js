"use strict";
// A server's backups: which there are, how long each is kept and why; to hold one, to release it, to forget it.

/**
 * Asks a person for some words in a dialog before `path` is asked for `method`. `fields` are elements of a form whose names
 * are the body's; `typed` has to be typed in first, where what is done can't be undone.
 */
function askInDialog({ title, text, fields = [], typed, button, path, method = "POST", body = (words) => words, said }) {
  const dialog = el("dialog", { "aria-labelledby": "asked-title" });
  const trouble = el("p", { class: "trouble", role: "alert" });
  const go = el("button", { text: button });
  const away = el("button", { type: "button", text: "Leave it" });
  const proof = typed && el("input", { id: "asked-typed", spellcheck: "false", autocomplete: "off", required: "" });
  const form = el("form", {},
    el("h2", { id: "asked-title", text: title }), el("p", { text }), ...fields,
    ...(proof ? [field(`Type ${typed}`, proof)] : []), trouble, el("div", { class: "row" }, go, away));
  if (proof) {
    go.disabled = true;
    proof.addEventListener("input", () => (go.disabled = proof.value.trim() !== typed));
  }
  // One key for what is asked: pressed again after a lost answer, it is done once.
  const headers = { "Idempotency-Key": newKey() };
  form.addEventListener("input", () => (headers["Idempotency-Key"] = newKey()));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (go.disabled) return;
    go.disabled = true;
    const words = Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
    try {
      const answer = await ask(path, { method, headers, body: JSON.stringify(body(words)) });
      dialog.close();
      live.textContent = answer.decision === "waiting" ? `Request ${answer.id} waits for a second person.` : said;
      await drawChanged();
    } catch (error) {
      trouble.textContent = error.message;
      go.disabled = false;
    }
  });
  away.addEventListener("click", () => dialog.close());
  const before = document.activeElement;
  dialog.addEventListener("close", () => (dialog.remove(), before?.isConnected && before.focus()));
  dialog.append(form);
  document.body.append(dialog);
  dialog.showModal();
}

const reasonField = () => field("Reason", el("input", { name: "reason", id: "asked-reason", maxlength: "1000", autocomplete: "off" }), "It stands in the audit log.");

/** A button that is told apart from those of other rows by its name. */
function rowButton(text, label, action) {
  const made = el("button", { type: "button", text, "aria-label": label });
  made.addEventListener("click", action);
  return made;
}

function backupActions(backup) {
  const called = backup.name || backup.id;
  const path = `/backups/${encodeURIComponent(backup.id)}`;
  const hold = rowButton("Hold…", `Hold backup ${called}`, () => askInDialog({
    title: `Hold ${called}`, text: "It is kept, whatever its policy says, until somebody releases it.",
    fields: [reasonField()], button: "Hold it", path: `${path}/hold`, said: `Backup ${called} is held.`,
  }));
  const release = rowButton("Release…", `Release backup ${called}`, () => askInDialog({
    title: `Release ${called}`, text: "Its policy says from then on how long it is kept.",
    fields: [reasonField()], button: "Release it", path: `${path}/unhold`, said: `Backup ${called} is released.`,
  }));
  const forget = rowButton("Forget…", `Forget backup ${called}`, () => askInDialog({
    title: `Forget ${called}`, text: "Nothing can be restored from it any more; the next prune gives its space back.",
    fields: [reasonField()], typed: called, button: "Forget it", path, method: "DELETE", said: `Backup ${called} is forgotten.`,
  }));
  return backup.held ? [release] : [hold, forget];
}

/** Newest first. `kept` says until when and why, by id; only an admin gets what changes that. */
function backupTable(backups, kept, me) {
  const why = new Map(kept.map((k) => [k.id, k]));
  const admin = me.role === "admin";
  const rows = [...backups].reverse().map((b) => {
    const k = why.get(b.id);
    const until = k ? `${k.until ? show(k.until) : "for ever"} (${k.reasons.join(", ")})` : "no promise needs it";
    const cells = [el("code", { text: b.id }), b.name || "-", show(b.completed), size(b.data_bytes), size(b.stored_bytes), b.proof || "-", until, `${b.note}${copiedWords(b)}`.trim()];
    return el("tr", { "data-backup": b.id }, ...cells.map((cell) => el("td", {}, cell)), ...(admin ? [el("td", {}, el("div", { class: "row" }, ...backupActions(b)))] : []));
  });
  const head = ["Id", "Name", "Completed", "Data", "Stored", "Proof", "Kept until", "Note", ...(admin ? [""] : [])].map((text) => el("th", { scope: "col", text }));
  return el("div", { class: "wide" }, el("table", { id: "backups" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)));
}

/** A backup with a name, a date of its own, or held. */
function namedBackup(server) {
  const held = el("input", { type: "checkbox", name: "hold", id: "asked-hold" });
  askInDialog({
    title: `Back up ${server}`, text: "Beside what its policy takes.", button: "Back up", path: `/servers/${encodeURIComponent(server)}/backups`,
    fields: [
      field("Name", el("input", { name: "name", id: "asked-name", maxlength: "64", autocomplete: "off", spellcheck: "false", placeholder: "before-the-upgrade" })),
      field("Keep for at least", el("input", { name: "keep_for", id: "asked-keep", pattern: "[0-9]{1,4}[ywdhms]", autocomplete: "off", placeholder: "30d" }), "A number and y, w, d, h, m or s; empty: what its policy says."),
      el("label", { class: "tick" }, held, el("span", { text: "Hold it until somebody releases it" })),
      field("Note", el("input", { name: "note", id: "asked-note", maxlength: "1000", autocomplete: "off" })),
    ],
    body: (words) => ({ ...words, hold: held.checked }), said: "The backup is queued.",
  });
}

/** Locks a server, or ends its lock. */
function serverLock(server) {
  const path = `/servers/${encodeURIComponent(server.server)}`;
  return server.locked
    ? askInDialog({ title: `Unlock ${server.server}`, text: "It and its backups may be taken away again.", fields: [reasonField()], button: "Unlock it", path: `${path}/unlock`, said: `${server.server} is not locked any more.` })
    : askInDialog({ title: `Lock ${server.server}`, text: "Neither it nor any of its backups may be taken away, but by retention as it is now.", fields: [reasonField()], button: "Lock it", path: `${path}/lock`, said: `${server.server} is locked.` });
}
