// The live page: what the server's events tell, as a row of numbers and three charts for each service.
// Only what is in sight is drawn: of many services the charts are made when their row comes into sight, and unmade after.
"use strict";
const FEW = 8;  // services up to which charts have axes, and a panel each
const cramped = { run: 1180, models: 640 };  // widths of a page up to which a table has no room; learnt as its numbers grow
const POINTS_KEPT = 2000;
const SMALL_POINTS = 150;  // of a line in a chart without axes, which is about as many pixels wide

const $ = id => document.getElementById(id);
const root = document.documentElement;
const colours = {};  // of the theme: asking for a style while the page changes costs more than drawing
const css = name => colours[name] ||= getComputedStyle(root).getPropertyValue(`--${name}`).trim();
let run = null, rows = [], connected = true;
const shown = new Set();  // rows in sight
let live = { periods: [], services: {}, models: {}, refused: {}, references_j: {}, lost: {}, rejoined: {}, retries: {}, over: false };
let still = null;  // what is shown instead while the page pauses
const view = () => still || live;

// Numbers as text

const number = (value, digits) => value === null || value === undefined ? "-" : value.toFixed(digits);
const ms = seconds => seconds === null || seconds === undefined ? "-" : (seconds * 1e3).toFixed(0);
const significant = value => value === 0 ? "0" : value >= 1000 ? value.toFixed(0) : value.toPrecision(3);
function scaled(value, unit) {
  if (value === null || value === undefined) return "-";
  const [factor, prefix] = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"]].find(([f]) => Math.abs(value) >= f) || [1, ""];
  return `${significant(Math.abs(value / factor)).replace(/\.0+$/, "")} ${prefix}${unit}`.trim();
}
const cutName = (m, n, cut) => run.choices?.length ? run.choices[m][n][cut] : `${cut}/${run.num_cuts[m][n]}`;
const targetOf = (m, n) => run.targets_s?.length ? run.targets_s[m][n] : 0;

// Columns of the two tables: class, label, text of a service (or model), of the last period where there is one

const RUN = [
  { key: "device", label: "device", text: true },
  { key: "service", label: "service", text: true },
  { key: "cut", label: "cut" },
  { key: "cuts", label: "cut in force", chart: true },
  { key: "queues", label: "queues", chart: true },
  { key: "power", label: "frequency, power", chart: true },
  { key: "hz", unit: "GHz" },
  { key: "bps", unit: "kbit/s" },
  { key: "w", unit: "mW" },
  { key: "j", label: "energy", unit: "J" },
  { key: "done", label: "done" },
  { key: "p50", label: "p50", unit: "ms" },
  { key: "p95", label: "p95", unit: "ms" },
  { key: "target", label: "target", unit: "ms", optional: () => run.targets_s?.length },
  { key: "batch", label: "batch" },
  { key: "rejoined", label: "rejoined" },
  { key: "retries", label: "retries" },
  { key: "fallbacks", label: "fallbacks" },
];
const MODELS = [
  { label: "model", text: true, of: (name) => name },
  { label: "answered", of: (name, own) => own.done, run: false },
  { label: "p50 ms", of: (name, own) => ms(own.p50_s), run: false },
  { label: "p95 ms", of: (name, own) => ms(own.p95_s), run: false },
  { label: "batches, by size", of: (name, own) => Object.entries(own.sizes).map(([size, count]) => `${count} of ${size}`).join(", ") || "-" },
  ...["dropped", "repeated", "refused"].map(what => ({ label: what, of: (name, own) => own.counts[what] || 0, run: what === "dropped" })),
  ...["retries", "fallbacks"].map(what => ({ label: what, of: (name, own) => own.counts[what] || 0, run: false, rare: true, what })),
];

function head(table, columns) {
  const row = document.createElement("tr");
  for (const { key, label, unit, text, chart } of columns) {
    const cell = document.createElement("th");
    cell.textContent = [label, unit].filter(Boolean).join(" ");
    cell.className = `${text ? "text" : chart ? "chart" : ""} ${key ? `name-${key}` : ""}`;
    row.append(cell);
  }
  table.tHead.replaceChildren(row);
}

// Charts

const SI = ["", "k", "M", "G"];
function ticks(values) {  // one prefix for a whole axis
  const top = Math.max(...values.map(Math.abs));
  const step = Math.min(Math.max(Math.floor(Math.log10(top || 1) / 3), 0), 3);
  return values.map(value => value === null ? "" : `${+(value / 1000 ** step).toPrecision(6)}${value ? SI[step] : ""}`);
}
const stepped = uPlot.paths.stepped({ align: -1 });  // a mean of a period is drawn from the period's start to its end
const line = (name, scale, unit, steps) => ({
  label: name, scale, stroke: () => css(name.split(" ")[0]), width: 1.3, paths: steps ? stepped : undefined, points: { show: false },
  value: (_, value) => scaled(value, unit),
});
const CHARTS = {
  cuts: {
    series: row => [{ ...line("cut", "y", "", true), value: (_, cut) => cut === null || cut === undefined ? "-" : cutName(row.m, row.n, cut) }],
    values: (row, periods) => [periods.map(p => p.cuts[row.m][row.n])],
    scales: row => ({ y: { range: [0, Math.max(run.num_cuts[row.m][row.n], 1)] } }),
    axes: [{ scale: "y", label: "cut", incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500] }],
  },
  queues: {
    series: () => [line("local", "cycles", ""), line("edge", "cycles", ""), line("link", "bits", "")],
    values: (row, periods) => [0, 2, 1].map(stage => periods.map(p => p.backlog[stage][row.m][row.n])),
    scales: () => ({ cycles: { range: fromZero }, bits: { range: fromZero } }),
    axes: [{ scale: "cycles", label: "queues, cycles", least: 10 }, { scale: "bits", label: "bit", colour: "link", side: 1, least: 10 }],
  },
  power: {
    series: row => [line("frequency", "hz", "Hz", true), ...(row.n ? [] : [line("power", "w", "W", true)])],
    values: (row, periods) => [periods.map(p => p.rate[0][row.m][row.n]), ...(row.n ? [] : [periods.map(p => p.power_w[row.m])])],
    scales: () => ({ hz: { range: fromZero }, w: { range: fromZero } }),
    axes: [{ scale: "hz", label: "Hz", colour: "frequency", least: 10 }, { scale: "w", label: "mW", colour: "power", side: 1, times: 1e3 }],
  },
};
function fromZero(chart, low, high) {
  return [0, high > 0 ? high * 1.05 : 1];
}
function plot(row, key) {
  const { series, scales, axes } = CHARTS[key], place = row[key], few = isFew();
  const axis = ({ scale, label, colour, side = 3, incrs, times = 1, least = 0 }) => ({
    scale, label, side, incrs, size: 40, labelSize: 14, labelGap: -2, gap: 2, space: 24, font: "10px system-ui", labelFont: "10px system-ui",
    stroke: () => css(colour || "dim"), grid: { show: side === 3, stroke: () => css("line"), width: 1 }, ticks: { show: false },
    values: (_, values) => ticks(values.map(value => value === null || value && value < least ? null : value * times)),  // of a line that is 0 only 0
  });
  const lines = series(row);
  return new uPlot({
    ...size(place), padding: few ? [6, 14, 0, 0] : [1, 1, 1, 1],
    scales: { x: { time: false, range: () => [row.from, row.end] }, ...scales(row) },
    series: [{ label: "t", value: (_, t) => t === null || t === undefined ? "-" : `${t.toFixed(1)} s` }, ...lines],
    axes: few ? [
      { ...axis({ scale: "x", side: 2 }), size: 16, space: 60, values: (_, values) => values.map(value => `${+value.toFixed(2)} s`) },
      ...axes.filter(one => lines.some(own => own.scale === one.scale)).map(axis),
    ] : [{ show: false }, { show: false }],
    cursor: few ? { y: false, drag: { x: false, y: false }, sync: { key: "time" } } : { show: false },
    legend: { show: few },
    hooks: { setLegend: [latest], draw: few ? [latest] : [] },
  }, [[], ...lines.map(() => [])], place);
}
const LEGEND_PX = 22;
const size = place => ({ width: Math.max(place.clientWidth, 40), height: place.clientHeight - (isFew() ? LEGEND_PX : 0) });

// Rows

const inSight = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    const row = rows[target.dataset.row];
    if (!row) continue;
    if (isIntersecting) { shown.add(row); draw([row]); }
    else { shown.delete(row); unplot(row); }
  }
}, { rootMargin: "100px" });
const sized = new ResizeObserver(entries => {
  for (const { target } of entries) {
    const chart = rows[target.closest("tr[data-row]")?.dataset.row]?.plots?.[target.dataset.key];
    if (chart) chart.setSize(size(target));
  }
});
function unplot(row) {
  for (const key in row.plots || {}) sized.unobserve(row[key]);
  for (const key in row.plots) row.plots[key].destroy();
  row.plots = null;
}
function build() {
  rows.forEach(unplot);
  inSight.disconnect();
  rows = [];
  shown.clear();
  $("run").hidden = !run;
  $("device").replaceChildren(new Option("all", ""));
  const body = $("run").tBodies[0];
  body.replaceChildren();
  layout();
  if (!run) return;
  const columns = RUN.filter(({ optional }) => !optional || optional());
  head($("run"), columns);
  run.services.forEach((names, m) => {
    $("device").append(new Option(m, m));
    names.forEach((name, n) => {
      const line = body.insertRow(), row = { m, n, line, plots: null };
      line.className = n ? "" : "device";
      line.dataset.row = rows.length;
      for (const { key, label, unit, text, chart } of columns) {
        const cell = line.insertCell();
        if (chart) {
          row[key] = document.createElement("div");
          row[key].className = "plot";
          row[key].dataset.key = key;
          cell.append(row[key]);
        }
        else row[key] = cell;
        cell.className = `${text ? "text" : ""} ${chart ? "chart" : ""} name-${key}`;
        if (label && key !== "service") cell.dataset.label = label;
        if (unit) cell.dataset.unit = unit;
      }
      row.service.textContent = row.service.title = name;
      rows.push(row);
    });
  });
  layout();
  rows.forEach(row => inSight.observe(row.line));
}
function latest(chart) {  // a legend says what the lines end with, unless somebody points at another time
  if (!(chart.cursor.left >= 0) && chart.data[0].length) chart.setLegend({ idx: chart.data[0].length - 1 }, false);
}
const isFew = () => rows.length <= FEW;
function layout() {
  $("run").classList.toggle("few", isFew());
  $("run").classList.toggle("panels", isFew() || innerWidth <= cramped.run);
  $("models").classList.toggle("panels", innerWidth <= cramped.models);
  document.querySelector(".key").hidden = !run || isFew();
  for (const of of ["window", "device"]) $(of).parentElement.hidden = !run;
}
new ResizeObserver(([{ target }]) => root.style.setProperty("--head", `${target.offsetHeight}px`)).observe(document.querySelector("header"));
function fit() {  // a table that sticks out to the side becomes panels
  const main = document.querySelector("main"), { paddingLeft, paddingRight } = getComputedStyle(main);
  const room = main.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight);
  for (const name in cramped) {
    if ($(name).classList.contains("panels") || $(name).offsetWidth <= Math.ceil(room)) continue;
    cramped[name] = innerWidth;
    layout();
  }
}

// Drawing

function draw(which = [...shown]) {
  performance.clearMeasures("draw");
  const start = performance.now();
  drawHead();
  drawModels();
  const { periods } = view();
  if (run && periods.length) {
    const end = periods[periods.length - 1], from = Math.max(end.time_s - Number($("window").value), 0);
    let first = 0;
    while (first < periods.length - 1 && periods[first].time_s < from) first++;
    let seen = periods.slice(Math.max(first - 1, 0));
    const step = isFew() ? 1 : Math.ceil(seen.length / SMALL_POINTS);
    if (step > 1) seen = seen.filter((_, i) => (seen.length - 1 - i) % step === 0);
    const times = seen.map(p => p.time_s);
    for (const row of which) drawRow(row, end, from, seen, times);
  }
  fit();
  queueMicrotask(() => performance.measure("draw", { start, end: performance.now() }));  // after uPlot's own
}
function write(cell, text) {  // what is the same costs no layout
  if (cell.textContent !== String(text)) cell.textContent = text;
}
function drawRow(row, end, from, seen, times) {
  const { m, n } = row, { services, lost, rejoined, retries } = view(), own = services[`${m}/${n}`];
  if (row.line.hidden) return;
  const isNamed = !n || $("run").classList.contains("panels");  // in a table a device's first line names it
  write(row.device, !isNamed ? "" : lost[m] === undefined ? m : `${m} lost`);
  row.line.title = lost[m] === undefined ? "" : `lost: ${lost[m]}`;
  row.line.classList.toggle("lost", lost[m] !== undefined);
  write(row.cut, cutName(m, n, end.cuts[m][n]));
  write(row.hz, (end.rate[0][m][n] / 1e9).toFixed(2));
  write(row.bps, (end.rate[1][m][n] / 1e3).toFixed(0));
  write(row.w, n ? "" : (end.power_w[m] * 1e3).toFixed(1));
  write(row.j, n ? "" : significant(end.energy_j[m]));
  write(row.rejoined, n ? "" : rejoined[m] || 0);
  write(row.retries, n ? "" : retries[m] || 0);
  if (own) {
    const target = targetOf(m, n);
    write(row.done, own.done);
    write(row.fallbacks, own.counts.fallbacks || 0);
    write(row.p50, ms(own.p50_s));
    write(row.p95, ms(own.p95_s));
    row.p95.classList.toggle("missed", target > 0 && own.p95_s > target);
    row.p95.classList.toggle("met", target > 0 && own.p95_s !== null && own.p95_s <= target);
    if (row.target) write(row.target, target ? ms(target) : "");
    write(row.batch, number(own.batch, 1));
  }
  row.from = from;
  row.end = end.time_s;
  if (!row.plots) {
    row.plots = Object.fromEntries(Object.keys(CHARTS).map(key => [key, plot(row, key)]));
    for (const key in row.plots) sized.observe(row[key]);
  }
  for (const key in row.plots) {
    const chart = row.plots[key];
    chart.setData([times, ...CHARTS[key].values(row, seen)]);
  }
}
function drawHead() {
  const { periods, services, models, refused, references_j, rejoined, over } = view();
  const total = Object.values(run ? services : models).reduce((sum, one) => sum + one.done, 0);
  const strangers = Object.entries(refused).map(([status, count]) => `, ${count} refused (${status})`).join("");
  const isWaiting = !run && !Object.keys(models).length;
  let what = isWaiting ? "waiting for events" : "edge server", totals = isWaiting ? "" : `${total} answered`;
  if (run) {
    const end = periods[periods.length - 1];
    what = `${run.scenario}, policy ${run.policy}`;
    totals = `${total} tasks`;
    if (end) {
      const joules = end.energy_j.reduce((a, b) => a + b, 0);
      what += `, ${end.time_s.toFixed(1)} of ${(run.slots * run.slot_s).toFixed(0)} s`;
      totals += `, ${significant(joules)} J`;
      for (const [name, each] of Object.entries(references_j)) {
        const share = 100 * (1 - joules / (each * end.slots));
        if (each > 0) totals += `, ${Math.abs(share).toFixed(0)} % ${share < 0 ? "more" : "less"} than ${name}`;
      }
    }
    if (run.targets_s?.length) {
      const aimed = rows.filter(({ m, n }) => targetOf(m, n) > 0 && services[`${m}/${n}`]?.p95_s != null);
      const met = aimed.filter(({ m, n }) => services[`${m}/${n}`].p95_s <= targetOf(m, n));
      if (aimed.length) totals += `, ${met.length} of ${aimed.length} services within target`;
    }
  }
  $("run").classList.toggle("returns", Object.keys(rejoined).length > 0);
  $("what").classList.toggle("missed", !connected);
  $("what").textContent = !connected ? "no connection; trying again" : what + (over ? ", over" : "") + (still ? ", paused" : "");
  $("totals").textContent = totals + strangers;
}
function drawModels() {
  const { models } = view();
  const names = Object.keys(models).sort();
  const columns = MODELS.filter(one => (!run || one.run !== false) && (!one.rare || names.some(name => models[name].counts[one.what])));
  $("models").hidden = !names.length;
  head($("models"), columns);
  $("models").tBodies[0].replaceChildren();
  for (const name of names) {
    const line = $("models").tBodies[0].insertRow();
    for (const { label, of, text } of columns) {
      const cell = line.insertCell();
      cell.textContent = of(name, models[name]);
      cell.className = text ? "text" : "";
      if (!text) cell.dataset.label = label;
    }
  }
}

// What the server says

function follow() {
  const source = new EventSource("events");
  source.onmessage = message => {
    const news = JSON.parse(message.data);
    connected = true;
    if (news.reset) {
      run = news.run;
      live = { periods: [], services: {}, models: {} };
      pause(false);
    }
    let periods = [...live.periods, ...news.periods];
    if (periods.length > POINTS_KEPT) {  // as the server does: older ones are kept ever coarser
      const half = periods.length >> 1;
      periods = [...periods.slice(0, half).filter((_, i) => i % 2 === 0), ...periods.slice(half)];
    }
    live = { ...news, periods, services: { ...live.services, ...news.services }, models: { ...live.models, ...news.models } };
    if (news.reset) build();
    if (!still) draw();
  };
  source.onerror = () => { connected = false; drawHead(); };
}

// What the watcher says

function pause(wanted) {
  still = wanted ? live : null;
  $("pause").textContent = wanted ? "go on" : "pause";
}
$("pause").onclick = () => { pause(!still); draw(); };
function theme(name) {
  root.dataset.theme = name;
  for (const one in colours) delete colours[one];
  $("theme").textContent = name === "dark" ? "light" : "dark";
  for (const row of shown) for (const key in row.plots) row.plots[key].redraw(false);
}
theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
$("theme").onclick = () => theme(root.dataset.theme === "dark" ? "light" : "dark");
$("window").onchange = () => draw();
$("device").onchange = () => {
  const wanted = $("device").value;
  for (const row of rows) row.line.hidden = wanted !== "" && row.m !== Number(wanted);
};
addEventListener("resize", layout);
follow();
