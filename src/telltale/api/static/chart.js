// Charts of readings: cells as a band (lowest, median, highest) with the named cell; signals as min–max.
"use strict";
(() => {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const pad = (n) => String(n).padStart(2, "0");
  const hhmm = (s) => { const d = new Date(s * 1000); return `${pad(d.getHours())}:${pad(d.getMinutes())}`; };
  const hhmmss = (s) => `${hhmm(s)}:${pad(new Date(s * 1000).getSeconds())}`;
  const times = (marks) => marks.map(marks.length > 1 && marks[1] - marks[0] < 60 ? hhmmss : hhmm);
  const FOLLOW_MS = 5000;
  const HEIGHT = 260;

  function axes(unit) {
    const look = { stroke: css("--soft"), grid: { stroke: css("--grid"), width: 1 }, ticks: { stroke: css("--grid") } };
    return [
      { ...look, space: 70, values: (u, marks) => times(marks) },
      { ...look, size: 58, label: unit, labelSize: 18, labelGap: 2, values: (u, marks) => marks.map((m) => +m.toFixed(3)) },
    ];
  }
  // The moment of the event, as a dashed line.
  function marker(at) {
    return { hooks: { draw: [(u) => {
      if (!at || at < u.scales.x.min || at > u.scales.x.max) return;
      const x = Math.round(u.valToPos(at, "x", true));
      const { ctx, bbox } = u;
      ctx.save();
      ctx.strokeStyle = css("--urgent");
      ctx.lineWidth = devicePixelRatio;
      ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.restore();
    }] } };
  }
  const number = (u, v) => (v == null ? "–" : +v.toFixed(3));
  const line = (label, colour, width = 1) =>
    ({ label, stroke: css(colour), width, points: { show: false }, value: number });

  function cellPlot(found, words) {
    const c = found.cells;
    const series = [line(words.min, "--band-line"), line(words.median, "--median", 1.5), line(words.max, "--band-line")];
    const data = [found.t, c.min, c.median, c.max];
    if (c.cell) {
      series.push(line(words.cell, "--cell", 2));
      data.push(c.cell.min);
    }
    return { unit: c.unit, series, data, bands: [{ series: [3, 1], fill: css("--band") }] };
  }
  function signalPlots(found, words) {
    return Object.entries(found.columns).map(([name, c]) => ({
      unit: `${words.columns[name][0]} (${words.columns[name][1] || c.unit})`,
      series: [line(words.low, "--median", 1.5), line(words.high, "--median", 1.5)],
      data: [found.t, c.min, c.max],
      bands: [{ series: [2, 1], fill: css("--band") }],
    }));
  }
  function draw(figure, found) {
    const words = JSON.parse(figure.dataset.words);
    const place = figure.querySelector(".plots");
    const plots = found.cells ? [cellPlot(found, words)] : signalPlots(found, words);
    const known = plots.filter((p) => p.data.slice(1).some((values) => values.some((v) => v != null)));
    place.replaceChildren();
    if (!known.length) return say(place, words.none);
    for (const plot of known) {
      const box = document.createElement("div");
      box.className = "plot";
      place.append(box);
      const width = place.clientWidth;
      new uPlot({
        width, height: found.cells ? HEIGHT : 180, legend: { live: true },
        cursor: { drag: { x: true, y: false } },
        scales: { x: { time: true } },
        axes: axes(plot.unit),
        series: [{ label: words.time, value: (u, v) => (v == null ? "–" : telltale.local(v * 1000)) }, ...plot.series],
        bands: plot.bands,
        plugins: [marker(Date.parse(figure.dataset.at) / 1000)],
      }, plot.data, box);
    }
  }
  function say(place, text) {
    const p = document.createElement("p");
    p.className = "said";
    p.textContent = text;
    place.replaceChildren(p);
  }
  // A page about something that happens now follows the clock: the same stretch, moved on.
  function address(figure) {
    if (!figure.dataset.follow) return figure.dataset.series;
    const url = new URL(figure.dataset.series, location.href);
    const end = Date.now();
    if (!figure.dataset.at) {
      const length = Date.parse(url.searchParams.get("to")) - Date.parse(url.searchParams.get("from"));
      url.searchParams.set("from", new Date(end - length).toISOString());
    }
    url.searchParams.set("to", new Date(end).toISOString());
    return url;
  }
  async function load(figure) {
    try {
      const answer = await fetch(address(figure), { headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(String(answer.status));
      figure.found = await answer.json();
      draw(figure, figure.found);
    } catch (error) {
      if (!figure.found) say(figure.querySelector(".plots"), JSON.parse(figure.dataset.words).failed);
    }
  }
  const figures = [...document.querySelectorAll("figure[data-series]")];
  for (const figure of figures) load(figure);
  setInterval(() => {
    if (!document.hidden) figures.filter((f) => f.dataset.follow && !f.matches(":hover")).forEach(load);
  }, FOLLOW_MS);
  let width = innerWidth;
  let resizing = 0;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(resizing);
    resizing = setTimeout(() => figures.filter((f) => f.found).forEach((f) => draw(f, f.found)), 150);
  });
})();
