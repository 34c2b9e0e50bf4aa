"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const BLUE = "#2f62a0", ORANGE = "#c4651a";
const text = (s) => String(s).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
if (!data.runs.length) return;
const points = (runs, more) => Object.assign({ x: runs.map((r) => r.size), y: runs.map((r) => r.e2e_mean_s),
  text: runs.map((r) => text(r.name)), hovertemplate: "%{text}<br>%{x:.4g}, %{y:.4g} s<extra></extra>" }, more);
Plotly.newPlot("pareto", [
  points(data.runs.filter((r) => r.front), { mode: "lines", line: { shape: "hv", color: ORANGE }, name: "Pareto front",
    hoverinfo: "skip", hovertemplate: undefined }),
  points(data.runs, { mode: "markers", marker: { size: 10, color: data.runs.map((r) => r.front ? ORANGE : BLUE) }, name: "runs" })],
  { margin: { l: 70, r: 30, t: 44, b: 50 }, height: 420, showlegend: false, hovermode: "closest",
    font: { family: "system-ui, sans-serif", size: 12, color: "#1c2330" },
    xaxis: { title: { text: data.size }, rangemode: "tozero" }, yaxis: { title: { text: "mean E2E, s" }, rangemode: "tozero" } },
  { responsive: true, displaylogo: false, displayModeBar: false });
})();
