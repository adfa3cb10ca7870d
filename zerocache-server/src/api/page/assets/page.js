"use strict";
// Shows what /v1/events says. Text from the node is put into the page by textContent alone.

const STALE_MS = 3500, RETRY_MS = 3000, POINTS_MAX = 300, SPAN_MS = 300000;
const STATES = { ok: "✓", warn: "!", bad: "✕", none: "·" };
const RANK = { none: 0, ok: 1, warn: 2, bad: 3 };
const $ = id => document.getElementById(id);
let points = [], heard = 0, source = null, view = null, retry = 0;

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}
const setText = (element, text) => { if (element.textContent !== text) element.textContent = text; };
const setClass = (element, name) => { if (element.className !== name) element.className = name; };
const worst = states => states.reduce((a, b) => RANK[b] > RANK[a] ? b : a, "none");
const count = (n, one) => `${number(n)} ${n === 1 ? one : one + "s"}`;

// Makes the children of `parent` those of `items`, and keeps the elements of items that stay.
function sync(parent, items, key, create, update) {
  const known = new Map();
  for (const child of [...parent.children]) known.set(child.dataset.key, child);
  items.forEach((item, i) => {
    const name = String(key(item, i));
    let child = known.get(name);
    known.delete(name);
    if (!child) { child = create(item); child.dataset.key = name; }
    if (parent.children[i] !== child) parent.insertBefore(child, parent.children[i] || null);
    update(child, item);
  });
  for (const child of known.values()) child.remove();
}

function number(n) {
  if (n === null || n === undefined) return "–";
  const abs = Math.abs(n);
  if (abs >= 1e9) return (n / 1e9).toFixed(abs < 1e10 ? 2 : 1) + " G";
  if (abs >= 1e6) return (n / 1e6).toFixed(abs < 1e7 ? 2 : 1) + " M";
  if (abs >= 1e4) return (n / 1e3).toFixed(1) + " k";
  return abs >= 100 || Number.isInteger(n) ? Math.round(n).toLocaleString("en") : n.toFixed(1);
}
function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return (i && n < 100 ? n.toFixed(1) : Math.round(n)) + " " + units[i];
}
function duration(ms) {
  const s = ms / 1000;
  if (s < 60) return Math.floor(s) + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 172800) return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
  return Math.floor(s / 86400) + " days";
}
const millis = ms => ms === null || ms === undefined ? "–"
  : ms < 1 ? Math.round(ms * 1000) + " µs" : (ms < 100 ? ms.toFixed(1) : Math.round(ms)) + " ms";
const percent = ratio => ratio === null || ratio === undefined ? "–"
  : (ratio * 100).toFixed(ratio >= 1 || ratio === 0 ? 0 : 1) + " %";
const short = id => id.slice(0, 8);
const place = node => node.address === null ? "address unknown"
  : (node.address.includes(":") ? `[${node.address}]` : node.address) + ":" + node.port;
// The name of a node, if one was stated.
const named = node => node.name === place(node) ? null : node.name;

const WORDS = { "in-sync": "in sync", unmonitored: "not monitored from here" };
const COLOURS = { "in-sync": "ok", unreachable: "bad", warming: "warn", leaving: "warn" };
const colour = node => COLOURS[node.state] || "none";

// How bad the end of a certificate is.
const endOf = ({ days_left, is_renewed }) => is_renewed || days_left >= 14 ? "" : days_left < 2 ? "bad" : "warn";

// What needs attention, the worst first.
function attention(view) {
  const notes = [], bad = text => notes.push(["bad", text]), warn = text => notes.push(["warn", text]);
  for (const node of view.nodes) {
    if (node.state === "unreachable")
      bad(`This node has not reached ${place(node)} in ${node.region} (${short(node.id)}) for ${duration(node.since_ms)}`);
  }
  const own = view.nodes[0];
  if (own.state !== "in-sync") warn(`This node is ${own.state}: load balancers should not choose it`);
  for (const peer of view.refused) warn(`${peer.address} refuses this node: ${peer.code}`);
  for (const from of view.discovery) {
    if (["works", "waiting"].includes(from.state)) continue;
    warn(`Discovery by ${from.method} ${from.name}: ${from.state}${from.reason ? ": " + from.reason : ""}`);
  }
  for (const node of view.nodes) {
    if (node.replication_lag_ms > 5000)
      warn(`${place(node)} in ${node.region} lacks writes of the last ${duration(node.replication_lag_ms)}`);
  }
  for (const name of view.placement.conflicts) bad(`Two nodes have the name ${name}: neither owns keys`);
  if (view.address_conflicts) warn(`Two live nodes claimed one address, ${count(view.address_conflicts, "time")}`);
  const offset = view.stats.clock_offset_ms;
  if (Math.abs(offset) > 1000) warn(`The clock of this node is off by ${duration(Math.abs(offset))}`);
  const { certificate } = view;
  const ending = certificate && endOf(certificate);
  if (ending) notes.push([ending, `The certificate ends in ${certificate.days_left.toFixed(1)} days`]);
  if (view.stats.tombstone_retention_ms < 60000) warn("Tombstones are kept for less than a minute: the memory is too small");
  if (view.stats.disk_bytes_max && !view.stats.disk_writable) warn("Nothing is written to the disk: it is full, or fails");
  if (view.stats.panics) warn(`${count(view.stats.panics, "request handler")} panicked`);
  return notes.sort((a, b) => RANK[b[0]] - RANK[a[0]]);
}

function showRegions(view) {
  // This region first, the others by name: boxes do not move when a node falls silent.
  const home = view.nodes[0].region, byRegion = new Map([[home, []]]);
  const names = new Set(view.nodes.map(node => node.region));
  for (const name of [...names].sort()) if (name !== home) byRegion.set(name, []);
  for (const node of view.nodes) byRegion.get(node.region).push(node);
  const scheme = view.certificate ? "https" : "http";
  const latencies = new Map(view.regions.map(region => [region.name, region.latency_ms]));
  sync($("regions"), [...byRegion], ([name]) => name, () => {
    const box = make("article", "region"), head = make("div");
    head.append(make("h3"), make("span"));
    box.append(head, make("div", "nodes"));
    return box;
  }, (box, [name, nodes]) => {
    const [head, list] = box.children;
    setClass(box, "region " + worst(nodes.map(colour)));
    setText(head.children[0], name);
    const where = name === home ? "this region" : latencies.has(name) ? millis(latencies.get(name)) : "no answer";
    const { replicas, complete } = view.placement;
    const kept = name !== home || replicas === null ? null
      : `${number(replicas)} ${replicas === 1 ? "copy" : "copies"}` + " of each value" + (complete ? "" : ", being handed over");
    setText(head.children[1], [count(nodes.length, "node"), kept, where].filter(Boolean).join(" · "));
    const self = view.nodes[0].id;
    nodes.sort((a, b) => a.id === self ? -1 : b.id === self || a.id > b.id ? 1 : -1);
    sync(list, nodes, node => node.id, node => {
      const box = make(node.id === view.nodes[0].id || node.address === null ? "div" : "a", "node");
      const state = make("b");
      state.append(make("i"), make("strong"), make("em", "", "this node"));
      box.append(state, make("span"), make("span"));
      return box;
    }, (box, node) => {
      const own = node.id === view.nodes[0].id, [state, where, about] = box.children;
      setClass(box, "node " + colour(node));
      if (box.tagName === "A") {
        box.href = `${scheme}://${place(node)}/page/`;
        box.title = "Open the page of this node";
      }
      state.children[0].ariaHidden = "true";
      setText(state.children[0], STATES[colour(node)]);
      setText(state.children[1], WORDS[node.state] || node.state);
      state.children[2].hidden = !own;
      setText(where, place(node));
      const since = node.state === "unreachable" ? "for " : own ? "up " : node.monitored ? "seen for " : "last sign ";
      const parts = [named(node), short(node.id), node.zone, since + duration(node.since_ms)];
      if (!own && node.latency_ms !== null && node.state !== "unreachable") parts.push(millis(node.latency_ms));
      setText(about, parts.filter(Boolean).join(" · "));
    });
  });
  const hidden = view.nodes_known - view.nodes.length;
  $("more").hidden = hidden <= 0;
  setText($("more"), `${count(hidden, "more node")} that are well, or not monitored from here`);
}

const TILES = [
  { name: "Reads", key: "reads_per_s", show: v => number(v) + " /s", side: peak },
  { name: "Hit ratio", key: "hit_ratio", show: percent, max: 1, side: lowest },
  { name: "Writes", key: "writes_per_s", show: v => number(v) + " /s", side: peak },
  { name: "Read time, p99", key: "get_p99_us", show: v => "≤ " + millis(v / 1000), side: peak },
  { name: "Write time, p99", key: "put_p99_us", show: v => "≤ " + millis(v / 1000), side: peak },
  { name: "Memory", key: "bytes", show: bytes, max: view => view.stats.bytes_max,
    side: (_, view) => part(view.stats.bytes, view.stats.bytes_max)
      + (view.stats.disk_bytes_max ? `, disk ${part(view.stats.disk_bytes, view.stats.disk_bytes_max)}` : "") },
  { name: "Evictions", key: "evictions_per_s", show: v => number(v) + " /s", side: peak,
    state: v => v > 0 ? "warn" : "" },
  { name: "Peers behind", key: "lag_ms", show: v => v ? duration(v) : "none",
    side: (_, view) => count(view.stats.replication_queue_records, "record") + " queued",
    state: v => v > 60000 ? "bad" : v > 5000 ? "warn" : "" },
];
function part(used, most) {
  return `${percent(used / most)} of ${bytes(most)}`;
}
function peak(values, _, tile) {
  const known = values.filter(v => v !== null);
  return known.length ? "peak " + tile.show(Math.max(...known)) : "";
}
function lowest(values, _, tile) {
  const known = values.filter(v => v !== null);
  return known.length ? "lowest " + tile.show(Math.min(...known)) : "";
}
function showTiles(view) {
  sync($("tiles"), TILES, tile => tile.key, tile => {
    const box = make("article", "tile"), line = make("p");
    line.append(make("strong"), make("span"));
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 300 50");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    for (const name of ["area", ""]) {
      const path = document.createElementNS(svg.namespaceURI, "path");
      if (name) path.setAttribute("class", name);
      svg.append(path);
    }
    box.append(make("h3", "", tile.name), line, svg);
    return box;
  }, (box, tile) => {
    const values = points.map(point => point[tile.key]);
    let now = view.point[tile.key];
    // Without reads in this second the last ratio is more telling than none.
    if (now === null) now = values.reduce((last, v) => v === null ? last : v, null);
    const [, line, svg] = box.children;
    setClass(box, "tile " + (tile.state ? tile.state(now) : ""));
    setText(line.children[0], now === null ? "–" : tile.show(now));
    setText(line.children[1], tile.side(values, view, tile));
    const fixed = typeof tile.max === "function" ? tile.max(view) : tile.max;
    draw(svg, values, fixed || Math.max(1, ...values) * 1.1);
  });
}
// A graph of the last five minutes; the right edge is now.
function draw(svg, values, max) {
  const now = points[points.length - 1].at_ms;
  let line = "", area = "", begin = null, last = null;
  const end = () => { if (begin !== null) area += `L${last} 50L${begin} 50Z`; begin = null; };
  points.forEach((point, i) => {
    const value = values[i], x = (300 - (now - point.at_ms) * 300 / SPAN_MS).toFixed(1);
    if (value === null || x < 0) return;
    const y = (48 - 46 * Math.min(value / max, 1)).toFixed(1);
    if (begin !== null && x - last > 6) end();
    line += (begin === null ? "M" : "L") + x + " " + y;
    area += begin === null ? `M${x} 50L${x} ${y}` : `L${x} ${y}`;
    if (begin === null) begin = x;
    last = x;
  });
  end();
  svg.children[0].setAttribute("d", area);
  svg.children[1].setAttribute("d", line);
}

function showLatencies(view) {
  const regions = view.regions.filter(region => region.latency_ms !== null);
  const most = Math.max(1, ...regions.map(region => region.latency_ms));
  const rows = regions.length ? regions : [null];
  sync($("latency"), rows, region => region ? "r:" + region.name : "", region => {
    const row = make("li");
    if (region) row.append(make("span"), make("i"), make("span"));
    else setText(row, "No other region answers."), row.style.display = "block";
    return row;
  }, (row, region) => {
    if (!region) return;
    setText(row.children[0], region.name);
    row.children[1].style.setProperty("--part", Math.max(2, region.latency_ms / most * 100) + "%");
    setText(row.children[2], millis(region.latency_ms));
  });
}

function showFacts(view) {
  const { stats, certificate } = view, facts = [];
  const denied = points.reduce((sum, point) => sum + (point.denied || 0), 0);
  facts.push(["Entries", number(stats.entries) + (stats.entries_max === null ? "" : " of " + number(stats.entries_max))]);
  facts.push(["Expired", number(stats.expired)]);
  facts.push(["Tombstones kept for", duration(stats.tombstone_retention_ms)]);
  facts.push(["Requests", number(stats.requests)]);
  facts.push(["Denied, last 5 min", number(denied), denied ? "warn" : ""]);
  facts.push(["Replication queue", bytes(stats.replication_queue_bytes)]);
  facts.push(["Callers that wait for a lease", number(view.point.waiting)]);
  facts.push(["Responses not yet read", bytes(stats.response_bytes_pending)]);
  facts.push(["Clock correction", stats.clock_offset_ms + " ms", Math.abs(stats.clock_offset_ms) > 1000 ? "warn" : ""]);
  facts.push(["Encryption", ["off", "optional", "required"][stats.tls_mode] || "unknown"]);
  if (certificate) {
    const days = certificate.days_left, hint = certificate.is_renewed ? ", renewed by the node" : "";
    facts.push(["Certificate", `${days.toFixed(days < 10 ? 1 : 0)} days left${hint}`, endOf(certificate)]);
  }
  for (const from of view.discovery) facts.push([`Discovery: ${from.method}`, `${from.name}: ${from.state}`]);
  sync($("facts"), facts, (_, i) => i, () => {
    const row = make("div");
    row.append(make("dt"), make("dd"));
    return row;
  }, (row, [name, value, state]) => {
    setClass(row, state || "");
    setText(row.children[0], name);
    setText(row.children[1], value);
  });
}

// The rows of a field: one, or some for each histogram in it.
function figures([field, value]) {
  if (value === null || typeof value !== "object") return [[field, value]];
  return Object.entries(value).flatMap(([label, histogram]) =>
    ["count", "p50", "p99"].map(name => [`${field} ${label} ${name}`, histogram[name] ?? "–"]));
}

function showStats() {
  if (!view || !document.querySelector("details").open) return;
  const wanted = $("filter").value.trim().toLowerCase();
  const rows = Object.entries(view.stats).flatMap(figures).filter(([name]) => name.includes(wanted));
  sync($("stats"), rows, ([name]) => name, () => {
    const row = make("tr"), name = make("th");
    name.scope = "row";
    row.append(name, make("td"));
    return row;
  }, (row, [name, value]) => {
    setText(row.children[0], name);
    setText(row.children[1], value === null ? "no limit" : value.toLocaleString("en"));
  });
}

function show() {
  const own = view.nodes[0], notes = attention(view);
  const known = view.nodes.map(colour), state = worst([...known, ...notes.map(note => note[0])]);
  const unreachable = known.filter(colour => colour === "bad").length;
  const verdict = unreachable ? count(unreachable, "node") + " unreachable"
    : notes.length ? count(notes.length, "thing") + (notes.length === 1 ? " needs" : " need") + " attention"
    : state === "warn" ? "Nodes are starting or leaving" : "All is well";
  document.body.dataset.state = state;
  setText($("cluster"), "Cluster " + view.cluster);
  setText($("verdict"), verdict);
  document.title = `${state === "ok" ? "" : "(!) "}${verdict} · ${view.cluster}`;
  const icon = `/page/${state}.svg`;
  if ($("icon").getAttribute("href") !== icon) $("icon").href = icon;
  setText($("here"), [own.region, own.zone, named(own), place(own), short(own.id)].filter(Boolean).join(" · "));
  const regions = new Set(view.nodes.map(node => node.region)).size;
  const seen = view.nodes.filter(node => node.state !== "unreachable" && node.monitored || node === own).length;
  sync($("counts"), [["regions", number(regions)], ["nodes", number(view.nodes_known)], ["answer this node", number(seen)]],
    item => item[0], item => {
      const box = make("div");
      box.append(make("dt", "", item[0]), make("dd"));
      return box;
    }, (box, item) => setText(box.children[1], item[1]));
  sync($("notes"), notes.slice(0, 20), note => note[1].replace(/\d+ (s|min|h|days).*$/, ""), () => make("li"), (item, [kind, text]) => {
    setClass(item, "note " + kind);
    setText(item, text);
  });
  showRegions(view);
  showTiles(view);
  showLatencies(view);
  showFacts(view);
  showStats();
  setText($("foot"), `zerocache ${view.software.version} · node ${own.id} · up ${duration(own.since_ms)}`);
}

function showEvents(events) {
  const list = events.reverse().map((event, i) => ({ ...event, key: `${event.at_ms} ${i - events.length} ${event.text}` }));
  sync($("events"), list.length ? list : [null], event => event ? event.key : "", event => {
    if (!event) return make("li", "empty", "Nothing happened.");
    const row = make("li", event.severity), time = make("time"), when = new Date(event.at_ms);
    time.dateTime = when.toISOString();
    time.textContent = when.toLocaleTimeString([], { hour12: false });
    row.append(time, make("i"), make("span"));
    return row;
  }, (row, event) => {
    if (event) setText(row.children[2], event.text + (event.count > 1 ? ` (${number(event.count)} times)` : ""));
  });
}

// The keys that are read most: their names where this viewer may see them, else their hashes.
function showHotKeys({ mode, keys }) {
  $("hot-section").hidden = mode === "off";
  sync($("hot"), keys.length ? keys : [null], key => key ? key.hash : "", key => {
    if (!key) return make("li", "empty", "No key is read often.");
    const row = make("li");
    row.append(make("span", key.key === undefined ? "hash" : ""), make("small"), make("b"));
    return row;
  }, (row, key) => {
    if (!key) return;
    setText(row.children[0], key.key ?? key.hash);
    row.children[0].title = "Hash " + key.hash;
    setText(row.children[1], bytes(key.key_bytes));
    setText(row.children[2], number(key.reads_per_s) + " /s");
  });
}

function setLive(on, text) {
  $("live").dataset.on = on;
  setText($("live"), text);
  document.body.classList.toggle("stale", on === "no");
}
function hear() {
  heard = performance.now();
  setLive("yes", "live");
  $("live").dataset.beat = $("live").dataset.beat === "1" ? "0" : "1";
}

function open() {
  clearTimeout(retry);
  if (source || document.hidden) return;
  source = new EventSource("/v1/events");
  source.addEventListener("history", event => {
    const history = JSON.parse(event.data);
    points = history.points || [];
    $("logout").hidden = !history.session;
  });
  source.addEventListener("status", event => {
    const next = JSON.parse(event.data);
    if (!next) return;
    if (points.length && next.point.at_ms <= points[points.length - 1].at_ms) points.pop();
    points.push(next.point);
    if (points.length > POINTS_MAX) points.shift();
    view = next;
    hear();
    show();
  });
  source.addEventListener("hot-keys", event => showHotKeys(JSON.parse(event.data)));
  source.addEventListener("events", event => showEvents(JSON.parse(event.data) || []));
  source.onerror = () => {
    // A refused stream is closed by the browser: the session may be over, or the node full or gone.
    if (source && source.readyState === EventSource.CLOSED) { close(); again(); }
  };
}
function close() { if (source) source.close(); source = null; }
async function again() {
  try {
    const page = await fetch("/page/", { method: "HEAD", redirect: "manual", cache: "no-store" });
    if (page.type === "opaqueredirect") { location.assign("/page/login"); return; }
  } catch { /* The node does not answer; the line at the top says so. */ }
  retry = setTimeout(open, RETRY_MS);
}

setInterval(() => {
  if (document.hidden || !heard) return;
  const silent = performance.now() - heard;
  if (silent > STALE_MS) {
    setLive("no", `no news from this node for ${duration(silent)}`);
    document.title = "(!) no news from this node";
    $("icon").href = "/page/none.svg";
  }
}, 500);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return close();
  // The silence of a hidden page is its own.
  if (heard) heard = performance.now();
  open();
});
document.querySelector("details").addEventListener("toggle", showStats);
$("filter").addEventListener("input", showStats);
open();
