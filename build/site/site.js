// The menu on phones, the colours, and the search. The index (search.js) is a script, not JSON, so that it loads from a disk too, and
// only when somebody searches.
const base = document.currentScript.src.replace(/site\.js$/, "");
const stored = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
                 set: (name) => { try { localStorage.setItem("theme", name); } catch { } } };
document.documentElement.classList.add("scripted");
if (stored.get()) document.documentElement.dataset.theme = stored.get();

addEventListener("DOMContentLoaded", () => {
  const by = (id) => document.getElementById(id);

  const menu = by("menu"), menuButton = by("menu-button");
  const open = (yes) => { menu.classList.toggle("open", yes); menuButton.setAttribute("aria-expanded", yes); };
  menuButton.onclick = () => open(!menu.classList.contains("open"));
  menu.onkeydown = (e) => { if (e.key === "Escape") { open(false); menuButton.focus(); } };
  const current = menu.querySelector("[aria-current]");
  if (current) menu.scrollTop = Math.max(0, current.offsetTop - menu.clientHeight / 2);

  const themeButton = by("theme-button");
  const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const say = () => { themeButton.textContent = isDark() ? "Light" : "Dark"; };
  themeButton.onclick = () => { const name = isDark() ? "light" : "dark"; document.documentElement.dataset.theme = name; stored.set(name); say(); };
  say();

  const search = by("search"), query = by("query"), found = by("found"), hits = by("hits");
  const load = () => window.siteIndex || document.querySelector("script.index") || document.head.append(
    Object.assign(document.createElement("script"), { src: base + "search.js", className: "index", onload: show }));
  const begin = () => { search.showModal(); query.select(); load(); show(); };
  by("search-button").onclick = begin;
  addEventListener("keydown", (e) => {
    if (e.key === "/" && !search.open && !/^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName)) { e.preventDefault(); begin(); }
  });
  query.oninput = show;
  query.onkeydown = (e) => { if (e.key === "Enter") { e.preventDefault(); hits.querySelector("a")?.click(); } };
  hits.onclick = (e) => { if (e.target.closest("a")) search.close(); };

  /** Places that have every word, those with more of them in their title first. An entry is [address, title, text]. */
  function show() {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    hits.replaceChildren();
    if (!words.length || !window.siteIndex) { found.textContent = ""; return; }
    const rank = ([, title, text]) => {
      const t = title.toLowerCase(), all = t + " " + text.toLowerCase();
      return words.every((w) => all.includes(w)) ? words.filter((w) => t.includes(w)).length + words.filter((w) => t.split(/[^\p{L}\p{N}_-]+/u).includes(w)).length : -1;
    };
    const places = window.siteIndex.map((entry) => [rank(entry), entry]).filter(([r]) => r >= 0).sort((a, b) => b[0] - a[0]);
    found.textContent = places.length ? `${places.length} places` + (places.length > 30 ? ", the first 30" : "") : "Nothing has all these words.";
    for (const [, [address, title, text]] of places.slice(0, 30)) {
      const at = Math.max(0, text.toLowerCase().indexOf(words[0]) - 50);
      const link = Object.assign(document.createElement("a"), { href: base + address, textContent: title });
      const around = Object.assign(document.createElement("span"), { textContent: (at ? "…" : "") + text.slice(at, at + 150) });
      const item = document.createElement("li");
      item.append(link, around);
      hits.append(item);
    }
  }
});
