"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const BLUE = "#2f62a0", ORANGE = "#c4651a", GREEN = "#24693f", GREY = "#8a93a3", RED = "#a83a24";
const PAGE = 100, MOST_BARS = 40;
// Plotly reads tags in labels; names are text.
const text = (s) => String(s).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const byId = (id) => document.getElementById(id);
const round = (v, d = 3) => v === null || v === undefined || Number.isNaN(v) ? "-" :
  v === 0 ? "0" : Math.abs(v) >= 10 ** (d - 1) ? Math.round(v).toLocaleString("en") : Number(v.toPrecision(d)).toString();
const narrow = window.innerWidth < 600;
const layout = (more) => Object.assign({ margin: { l: 70, r: 70, t: 44, b: 50 }, font: { family: "system-ui, sans-serif",
  size: 12, color: "#1c2330" }, legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", traceorder: "normal" }, hovermode: "closest" }, more);
const draw = (id, traces, more) => {
  if (byId(id)) Plotly.newPlot(id, traces, layout(more), { responsive: true, displaylogo: false, displayModeBar: false });
};

// Few GPUs lie, many stand; the names of very many are left to the pointer.
const bars = (id, names, series, title, more) => {
  const flat = names.length <= MOST_BARS;
  const label = names.map(text);
  const traces = series.map((s) => ({ type: "bar", name: s.name, orientation: flat ? "h" : "v",
    [flat ? "y" : "x"]: label, [flat ? "x" : "y"]: s.values, marker: { color: s.color },
    text: s.text, textposition: "none", hovertemplate: s.hover || "%{label}: %{value:.3g}<extra>" + s.name + "</extra>" }));
  const value = { title: { text: title }, rangemode: "tozero" };
  const name = flat ? { autorange: "reversed", type: "category" } : { type: "category", showticklabels: false };
  draw(id, traces, Object.assign({ barmode: "stack", height: (flat ? 110 + 24 * names.length : 340) + (narrow && series.length > 1 ? 90 : 0),
    ...(narrow && series.length > 1 ? { margin: { l: 70, r: 20, t: 130, b: 50 } } : {}),
    [flat ? "xaxis" : "yaxis"]: value, [flat ? "yaxis" : "xaxis"]: name }, more));
};

const gpus = data.gpus, names = gpus.map((g) => g.id);
if (gpus.length) {
  const flat = names.length <= MOST_BARS;
  bars("load", names, [{ name: "load", color: gpus.map((g) => g.load > 1 ? RED : BLUE), values: gpus.map((g) => 100 * g.load) }],
    "% of the largest healthy load", { showlegend: false,
      shapes: [{ type: "line", line: { color: GREY, dash: "dot" }, ...(flat ? { x0: 100, x1: 100, yref: "paper", y0: 0, y1: 1 }
        : { y0: 100, y1: 100, xref: "paper", x0: 0, x1: 1 }) }] });
  if (gpus[0].memory) {
    const part = (key, name, color) => ({ name, color, values: gpus.map((g) => g.memory[key] / 2 ** 30) });
    bars("memory", names, [part("weights", "weights", BLUE), part("slots", "adapter slots", ORANGE),
      part("kv", "KV cache", GREEN), part("other", "activations and reserve", GREY)], "GiB");
  }
  compare();
  timeline();
}
if (data.what_if) whatIf();
adapterTable();

function compare() {
  const known = gpus.filter((g) => g.simulated && g.simulated.itl_mean_ms);
  if (!byId("compare") || !known.length) return;
  const choice = byId("compare-figure");
  const show = () => {
    const key = choice.value, axis = choice.selectedOptions[0].textContent;
    const own = known.filter((g) => g.predicted[key] != null && g.simulated[key] != null);
    const all = own.flatMap((g) => [g.predicted[key], g.simulated[key]]), top = Math.max(...all) * 1.05;
    draw("compare", [
      { x: [0, top], y: [0, top], mode: "lines", line: { color: GREY, dash: "dot" }, name: "equal", hoverinfo: "skip" },
      { x: own.map((g) => g.predicted[key]), y: own.map((g) => g.simulated[key]), mode: "markers", name: "GPU",
        error_y: { type: "data", array: own.map((g) => (g.interval || {})[key] || 0), color: BLUE },
        marker: { color: BLUE, size: 8 }, text: own.map((g) => text(g.id)),
        hovertemplate: "%{text}: predicted %{x:.4g}, simulated %{y:.4g}<extra></extra>" }],
      { height: 380, showlegend: false, xaxis: { title: { text: "predicted: " + axis }, rangemode: "tozero" },
        yaxis: { title: { text: "simulated: " + axis }, rangemode: "tozero" } });
  };
  choice.addEventListener("change", show);
  show();
}

function timeline() {
  const choice = byId("timeline-gpu");
  if (!choice) return;
  const show = () => {
    const t = data.timelines[choice.value];
    const line = (key, name, color, axis) => ({ x: t.minute, y: t[key], name, mode: "lines", line: { color }, yaxis: axis });
    draw("timeline", [line("running", "running", BLUE, "y"), line("waiting", "waiting", RED, "y"),
      line("adapters", "distinct adapters", ORANGE, "y"), line("kv", "KV cache %", GREEN, "y2")],
      { height: 380, xaxis: { title: { text: "minute of the simulated hour" } },
        yaxis: { title: { text: "requests, adapters" }, rangemode: "tozero" },
        yaxis2: { title: { text: "KV cache %" }, overlaying: "y", side: "right", range: [0, 100], showgrid: false } });
    byId("timeline-limit").textContent = t.limit;
  };
  choice.addEventListener("change", show);
  show();
}

function whatIf() {
  const rows = data.what_if, x = rows.map((r) => r.factor);
  const line = (key, name, color, axis, dash) => ({ x, y: rows.map((r) => r[key]), name, mode: "lines+markers",
    line: { color, dash }, yaxis: axis, connectgaps: false });
  draw("what-if", [line("gpus", "GPUs of a new plan", BLUE, "y"), line("e2e_mean_s", "its mean E2E s", ORANGE, "y2"),
    line("kept_e2e_mean_s", "mean E2E s of this plan", ORANGE, "y2", "dot")],
    { height: 380, xaxis: { title: { text: "all rates times" } }, yaxis: { title: { text: "GPUs" }, rangemode: "tozero" },
      yaxis2: { title: { text: "mean E2E s" }, overlaying: "y", side: "right", rangemode: "tozero", showgrid: false } });
}

function adapterTable() {
  const body = byId("adapters-body"), search = byId("adapters-search"), count = byId("adapters-count");
  if (!body) return;
  const rows = data.adapters, head = [...document.querySelectorAll("#adapters th")];
  let sorted = { column: 2, down: true }, page = 0;
  const lower = rows.map((r) => r[0].toLowerCase());
  const show = () => {
    const asked = search.value.trim().toLowerCase();
    let found = rows.map((_, i) => i).filter((i) => !asked || lower[i].includes(asked) || rows[i][3].includes(asked));
    const c = sorted.column, sign = sorted.down ? -1 : 1;
    found.sort((a, b) => {
      const u = rows[a][c], v = rows[b][c];
      if (u === null || v === null) return (u === null) - (v === null);
      return sign * (u < v ? -1 : u > v ? 1 : 0) || a - b;
    });
    page = Math.max(0, Math.min(page, Math.ceil(found.length / PAGE) - 1));
    const part = found.slice(page * PAGE, (page + 1) * PAGE);
    body.replaceChildren(...part.map((i) => {
      const tr = document.createElement("tr");
      rows[i].slice(0, 7).forEach((value, k) => {
        const td = document.createElement("td");
        td.textContent = value === null ? "-" : k === 2 || k === 6 ? round(value) : k === 5 ? round(100 * value) + " %" : value;
        if (k === 0) td.className = "name"; else if (k === 3 || k === 4) td.className = "text";
        tr.append(td);
      });
      return tr;
    }));
    count.textContent = found.length ? `${page * PAGE + 1} to ${page * PAGE + part.length} of ${found.length}` : "none found";
    head.forEach((th, k) => th.setAttribute("aria-sort", k !== c ? "none" : sorted.down ? "descending" : "ascending"));
  };
  search.addEventListener("input", () => { page = 0; show(); });
  byId("adapters-back").addEventListener("click", () => { page -= 1; show(); });
  byId("adapters-on").addEventListener("click", () => { page += 1; show(); });
  head.forEach((th, k) => th.querySelector("button").addEventListener("click", () => {
    sorted = { column: k, down: sorted.column === k ? !sorted.down : k === 2 || k > 4 };
    page = 0;
    show();
  }));
  show();
}
})();
