"use strict";
// Charts: what the board said, minute by minute. Each has the same in words, and a table behind it.

/** Stretches that may be chosen: seconds, and what they are called. */
const STRETCHES = [["3600", "an hour"], ["86400", "a day"], ["604800", "a week"], ["2592000", "30 days"]];

/** Seconds, of which there may be none. */
const short = (seconds) => (seconds === 0 ? "0 s" : seconds < 10 ? `${seconds.toFixed(1)} s` : span(seconds));
const plain = (number) => (Number.isInteger(number) ? String(number) : number.toPrecision(3));
const bytes = (number) => size(number);
const days = (seconds) => (seconds < 172800 ? span(seconds) : `${(seconds / 86400).toFixed(1)} days`);

/** What is drawn of a server, and of the repository: metric, title, how its values are said. */
const SERVER_CHARTS = [
  ["rpo_seconds", "What would be missing if it died", short],
  ["restorable_seconds", "Restorable without a hole for", days],
  ["transactions_per_second", "Transactions a second", plain],
  ["estimate_seconds", "A restore would take", span],
  ["stored_bytes", "Its backups take", bytes],
  ["log_bytes", "Log since the last backup", bytes],
];
const REPOSITORY_CHARTS = [
  ["stored_bytes", "Stored for backups", bytes],
  ["free_bytes", "Free", bytes],
  ["jobs_queued", "Jobs that wait", plain],
];

/** One chart of a series: a band from least to most, a line of the mean; what is not known is a gap. */
function chart(title, series, view, say) {
  const width = 400, height = 80;
  const from = Date.parse(view.from), step = view.step_seconds * 1000;
  const known = series.avg.map((value, at) => at).filter((at) => series.avg[at] !== null);
  const figure = el("figure", { class: "chart" });
  if (!known.length) {
    figure.append(el("figcaption", {}, el("strong", { text: title }), el("span", { text: "nothing is known of this stretch" })));
    return figure;
  }
  const most = Math.max(...known.map((at) => series.max[at]));
  const least = Math.min(...known.map((at) => series.min[at]));
  const peak = known.find((at) => series.max[at] === most);
  const when = (at) => show(from + at * step);
  const last = known.at(-1);
  const words = `last ${say(series.avg[last])}, least ${say(least)}, most ${say(most)} at ${when(peak)}`;
  // From zero, so that a small change does not look like a large one.
  const top = most > 0 ? most : 1;
  const x = (at) => (series.avg.length < 2 ? width / 2 : (at / (series.avg.length - 1)) * width);
  const y = (value) => height - 3 - (Math.max(0, value) / top) * (height - 8);
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${words}` })) svg.setAttribute(key, value);
  const put = (kind, d) => {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", kind);
    path.setAttribute("d", d);
    svg.append(path);
  };
  // Each unbroken run is a shape of its own.
  const runs = [];
  for (const at of known) at && series.avg[at - 1] !== null && runs.length ? runs.at(-1).push(at) : runs.push([at]);
  for (const run of runs) {
    const wide = run.length > 1 ? run.map((at) => [x(at), at]) : [[x(run[0]) - 1, run[0]], [x(run[0]) + 1, run[0]]];
    const line = (values) => wide.map(([place, at]) => `${place.toFixed(1)} ${y(values[at]).toFixed(1)}`);
    put("band", `M${line(series.max).join("L")}L${line(series.min).reverse().join("L")}z`);
    put("mean", `M${line(series.avg).join("L")}`);
  }
  const rows = [...known].reverse().filter((at, index) => index % Math.ceil(known.length / 24) === 0).map((at) =>
    el("tr", {}, el("td", { text: when(at) }), ...[series.min, series.avg, series.max].map((values) => el("td", { text: say(values[at]) }))));
  const head = ["From", "Least", "Mean", "Most"].map((text) => el("th", { scope: "col", text }));
  const numbers = el("details", {}, el("summary", { text: "in numbers", "aria-label": `${title} in numbers` }),
    el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows))));
  figure.append(el("figcaption", {}, el("strong", { text: title }), el("span", { text: words })), svg, numbers);
  return figure;
}

/** A section with charts of what is at `path`, over a stretch that may be chosen. */
function historySection(path, charts, extra) {
  const stretch = el("select", { id: "history-stretch" });
  for (const [value, text] of STRETCHES) stretch.append(el("option", { value, text }));
  stretch.value = sessionStorage.getItem("stretch") || "86400";
  const host = el("div", { class: "charts" });
  const words = el("p", { class: "facts", id: "history-words", "aria-live": "polite" });
  let turn = 0;
  const look = async () => {
    const mine = ++turn;
    sessionStorage.setItem("stretch", stretch.value);
    try {
      const view = await ask(`${path}?from=-${stretch.value}s&points=200&metric=${charts.map(([metric]) => metric).join()}`);
      if (mine !== turn) return;
      host.replaceChildren(...charts.map(([, title, say], at) => chart(title, view.series[at], view, say)));
      words.textContent = extra ? extra(view) : "";
    } catch (error) {
      if (mine === turn) host.replaceChildren(el("p", { class: "trouble", text: error.message }));
    }
  };
  stretch.addEventListener("change", look);
  look();
  return [el("h2", { text: "History" }), el("div", { class: "row" }, field("Of", stretch)), words, host];
}

/** When the place is full if it goes on as in this stretch: a line through the means of what is free. */
function forecast(view) {
  const free = view.series.find((series) => series.metric === "free_bytes").avg;
  const known = free.map((value, at) => [at, value]).filter(([, value]) => value !== null);
  if (known.length < 10) return "Too little is known to say when it is full.";
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const atMean = mean(known.map(([at]) => at)), freeMean = mean(known.map(([, value]) => value));
  const slope = known.reduce((sum, [at, value]) => sum + (at - atMean) * (value - freeMean), 0) / known.reduce((sum, [at]) => sum + (at - atMean) ** 2, 0);
  const perDay = (slope * 86400) / view.step_seconds;
  if (perDay > -(1024 ** 2)) return "It does not fill up: what is free does not shrink in this stretch.";
  const left = known.at(-1)[1] / -perDay;
  const date = new Date(Date.now() + left * 86400000).toLocaleDateString(undefined, { dateStyle: "medium" });
  return `${size(-perDay)} a day less are free: full ${left > 3650 ? "in more than ten years" : `about ${date}`}, if it goes on as in this stretch.`;
}
