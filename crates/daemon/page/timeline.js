"use strict";
// The timeline: backups, restorable stretches, holes, changes of definitions, and a slider over them.

const SVG = "http://www.w3.org/2000/svg";

/** Draws the timeline of `data` into `host`; `pick(ms)` is called when the slider comes to rest. */
function drawTimeline(host, data, pick) {
  const ms = (text) => Date.parse(text);
  const spans = data.timeline.spans.map((s) => [ms(s.from), ms(s.until)]);
  const bases = data.timeline.backups.map((b) => ({ at: ms(b.completed), id: b.id }));
  const flags = data.flags.map((f) => ({ at: ms(f.at), text: f.statement || f.kind, id: f.id }));
  const holes = data.timeline.gaps.filter((g) => g.noticed).map((g) => ms(g.noticed));
  const all = [...spans.flat(), ...bases.map((b) => b.at), ...holes];
  if (all.length === 0) {
    host.append(el("p", { text: "There is neither a backup nor a log yet." }));
    return;
  }
  const until = Math.max(...all);
  const from = Math.min(Math.min(...all), until - 1000);
  const width = 1000;
  const x = (at) => ((at - from) / (until - from)) * (width - 20) + 10;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} 96`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute(
    "aria-label",
    `${bases.length} backups, ${spans.length} restorable stretches, ${holes.length} holes, ${flags.length} changes of definitions`,
  );
  const put = (name, attributes, title) => {
    const shape = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
    if (title) {
      const text = document.createElementNS(SVG, "title");
      text.textContent = title;
      shape.append(text);
    }
    svg.append(shape);
    return shape;
  };
  for (const [a, b] of spans) {
    put("rect", { class: "log", x: x(a), y: 40, width: Math.max(2, x(b) - x(a)), height: 20 }, `restorable ${show(a)} to ${show(b)}`);
  }
  spans.slice(1).forEach(([begin], at) => {
    const end = spans[at][1];
    put("rect", { class: "hole", x: x(end), y: 40, width: Math.max(2, x(begin) - x(end)), height: 20 }, `hole: ${show(end)} to ${show(begin)}`);
  });
  for (const hole of holes) put("rect", { class: "hole", x: x(hole) - 1, y: 34, width: 3, height: 32 }, `a hole was noticed ${show(hole)}`);
  for (const base of bases) put("circle", { class: "base", cx: x(base.at), cy: 50, r: 6 }, `backup ${base.id}, ${show(base.at)}`);
  for (const flag of flags) {
    if (flag.at < from || flag.at > until) continue;
    put("path", { class: "flag", d: `M${x(flag.at)} 36 v-16 l10 5 l-10 5 z` }, `${show(flag.at)}: ${flag.text}`);
  }
  const cursor = put("line", { class: "cursor", x1: x(until), x2: x(until), y1: 8, y2: 80 });

  const slider = el("input", { type: "range", min: "0", max: "10000", value: "10000", step: "1", id: "moment" });
  const exact = el("input", { type: "text", id: "exact", spellcheck: "false", autocomplete: "off" });
  const set = (at, picked) => {
    cursor.setAttribute("x1", x(at));
    cursor.setAttribute("x2", x(at));
    slider.value = String(Math.round(((at - from) / (until - from)) * 10000));
    slider.setAttribute("aria-valuetext", show(at));
    exact.value = new Date(at).toISOString();
    if (picked) pick(at);
  };
  const of = () => from + (Number(slider.value) / 10000) * (until - from);
  let rest;
  slider.addEventListener("input", () => {
    const at = of();
    cursor.setAttribute("x1", x(at));
    cursor.setAttribute("x2", x(at));
    slider.setAttribute("aria-valuetext", show(at));
    exact.value = new Date(at).toISOString();
    clearTimeout(rest);
    rest = setTimeout(() => pick(at), 150);
  });
  exact.addEventListener("change", () => {
    const at = Date.parse(exact.value);
    if (Number.isNaN(at)) return exact.setCustomValidity("a time with its zone"), exact.reportValidity();
    exact.setCustomValidity("");
    set(Math.min(Math.max(at, from), until), true);
  });
  host.append(
    svg,
    el("label", {}, el("span", { text: "Moment" }), slider),
    el("div", { class: "row" }, el("label", {}, el("span", { text: "exactly" }), exact), el("span", { class: "facts", text: `${show(from)} to ${show(until)}` })),
  );
  if (flags.length) {
    const list = el("details", {}, el("summary", { text: `${flags.length} changes of definitions and accounts` }));
    const rows = flags.slice(-50).reverse().map((flag) => {
      const button = el("button", { type: "button", text: "just before" });
      button.setAttribute("aria-label", `To just before ${flag.text}`);
      button.addEventListener("click", () => pick(flag.at, flag.id));
      return el("tr", {}, el("td", { text: show(flag.at) }), el("td", {}, el("code", { text: flag.text })), el("td", {}, button));
    });
    list.append(el("div", { class: "wide" }, el("table", {}, el("tbody", {}, ...rows))));
    host.append(list);
  }
  set(until, false);
}
