// Live list and local times. Everything here is a convenience: the pages work without it.
"use strict";
(() => {
  const language = document.documentElement.lang;
  const pad = (n) => String(n).padStart(2, "0");

  function zone(date) {
    const minutes = -date.getTimezoneOffset();
    const rest = Math.abs(minutes) % 60;
    return `UTC${minutes < 0 ? "−" : "+"}${Math.floor(Math.abs(minutes) / 60)}${rest ? ":" + pad(rest) : ""}`;
  }
  // One written form in every language, on a 24-hour clock, in the viewer's zone and naming it.
  function local(text) {
    const d = new Date(text);
    return `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())} ` +
      `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())} ${zone(d)}`;
  }
  function showLocalTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]")) time.textContent = local(time.dateTime);
  }
  window.telltale = { local, language };
  showLocalTimes(document);
  document.addEventListener("htmx:load", (event) => showLocalTimes(event.detail.elt.parentNode || document));

  const failed = document.getElementById("failed");
  function sayFailed(event) {
    failed.textContent = failed.dataset.text;
    failed.hidden = event.type === "htmx:beforeRequest";
  }
  for (const name of ["htmx:responseError", "htmx:sendError", "htmx:beforeRequest"])
    document.addEventListener(name, sayFailed);

  const list = document.querySelector("ol[data-live]");
  const alert = document.querySelector("#alert[data-alert]");
  const sign = document.getElementById("live");
  if (!sign || !(list || alert)) return;

  const queue = [];
  let working = false;
  // One after the other, so that two events of one alert never race for its entry in the list.
  async function work() {
    if (working) return;
    working = true;
    while (queue.length) await update(queue.shift());
    working = false;
  }
  async function update(event) {
    if (!list) return;
    const own = document.getElementById(`alert-${event.alert}`);
    const url = `/alerts/${event.alert}/row?view=${list.dataset.live}&present=${own ? 1 : 0}`;
    await htmx.ajax("GET", url, own ? { target: own, swap: "outerHTML" } : { target: list, swap: "afterbegin" });
    const shown = document.getElementById(`alert-${event.alert}`);
    if (!shown) return;
    if (!own) shown.classList.add("new");
    if (event.kind === "raised" && !own) {
      const news = document.getElementById("news");
      news.textContent = news.dataset.new + shown.querySelector(".row-title").textContent;
    }
  }
  function onAlert(event) {
    const data = JSON.parse(event.data);
    if (list) {
      queue.push(data);
      work();
    } else if (document.getElementById("alert").dataset.alert === data.alert) {
      refreshAlert(data);
    }
  }
  // Somebody else changed the alert on this page: show it, unless the reader is writing.
  function refreshAlert(data) {
    const now = document.getElementById("alert");
    const writing = [...now.querySelectorAll("textarea")].some((t) => t.value) || now.querySelector(":checked");
    if (Number(now.dataset.version) >= data.version && data.kind !== "cleared") return;
    if (!writing) htmx.ajax("GET", location.pathname, { target: "#alert", select: "#alert", swap: "outerHTML" });
  }
  function show(on) {
    sign.hidden = false;
    sign.classList.toggle("on", on);
    sign.textContent = on ? sign.dataset.on : sign.dataset.off;
  }

  let source = null;
  let left = false;
  let lost = false;
  function connect() {
    source = new EventSource("/v1/events");
    source.addEventListener("ready", () => (lost ? location.reload() : show(true)));
    source.addEventListener("alert", onAlert);
    source.addEventListener("resync", () => location.reload());
    source.onerror = () => {
      show(false);
      if (source.readyState !== EventSource.CLOSED) return;
      // The browser gives up on an answer such as 503: try again, and then read the list as it is by then.
      lost = true;
      setTimeout(() => document.hidden || connect(), 5000);
    };
  }
  // A browser has six connections a site: pages nobody looks at hold none, and catch up when looked at again.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      left = true;
      source.close();
    } else if (left) {
      left = false;
      if (list) location.reload();
      else connect();
    }
  });
  addEventListener("pagehide", () => source && source.close());
  connect();
})();
