// Opens pages in Chromium as people see them and says what is wrong with them.
//
//     node build/browser/check.mjs [--out FOLDER] [--limit N] FILE-OR-FOLDER …
//
// A page is opened at desktop and phone width (1280, 390) and on a wide screen (1920), at each in light and dark. For each width a line: errors
// of the console and of loading, things from elsewhere, how much wider than the window the page is, how many Tab presses reach the menu and
// the main part, the least contrast of text, titles and legends of charts that are cut or cover each other, charts that the keyboard cannot save. Screenshots go into --out. Of a folder every .html is opened, N at most. Exits with 1 if anything is wrong.
// Needs: npm install --prefix build/browser --no-package-lock; Chromium (Debian: chromium; or CHROMIUM=FILE).
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { tmpdir } from "node:os";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const given = process.argv.slice(2);
const option = (name, otherwise) => { const i = given.indexOf(name); return i < 0 ? otherwise : given.splice(i, 2)[1]; };
const out = option("--out", null);
const limit = Number(option("--limit", Infinity));
const browsers = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = browsers.find((file) => file && existsSync(file));
if (!executablePath) { console.error("no Chromium: install one or name it in CHROMIUM"); process.exit(2); }

const files = given.flatMap((path) => statSync(path).isDirectory()
  ? readdirSync(path, { recursive: true }).filter((f) => f.endsWith(".html")).sort().map((f) => join(path, f)).slice(0, limit)
  : [path]);
if (!files.length) { console.error("no page is named"); process.exit(2); }
if (out) mkdirSync(out, { recursive: true });

/** In the page: pixels beyond the window, elements that stick out, the least contrast of text in view. */
function measure() {
  const root = document.documentElement;
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => { const f = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; }
    return rgba(getComputedStyle(root).colorScheme === "dark" ? "#121212" : "#fff"); };
  let least = 21, where = "";
  const seen = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode() && seen.size < 4000) {
    const e = walker.currentNode.parentElement;
    if (seen.has(e) || !walker.currentNode.data.trim() || e.closest("svg, script, style, noscript") || !e.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    seen.add(e);
    const color = rgba(getComputedStyle(e).color);
    if (color[3] < 255) continue;
    const [a, b] = [light(color), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least) { least = ratio; where = walker.currentNode.data.trim().slice(0, 30); }
  }
  const wide = [...document.querySelectorAll("body *")].filter((e) => {
    if (e.getBoundingClientRect().right <= root.clientWidth + 1 || !e.checkVisibility()) return false;
    for (let p = e.parentElement; p; p = p.parentElement) if (getComputedStyle(p).overflowX !== "visible") return false;
    return true;
  });
  return { beyond: root.scrollWidth - root.clientWidth, widest: wide.slice(0, 3).map((e) => e.tagName.toLowerCase() + (e.id ? "#" + e.id : "") + (e.className?.baseVal === undefined && e.className ? "." + e.className : "")),
    contrast: least, where };
}

/** In the page: words of charts that stick out of their chart, and titles and names in a legend that cover other words. */
function misplaced() {
  const found = [];
  for (const plot of document.querySelectorAll(".js-plotly-plot")) {
    const frame = plot.getBoundingClientRect();
    const words = (selector) => [...plot.querySelectorAll(selector)].filter((e) => e.textContent.trim() && e.checkVisibility({ opacityProperty: true, visibilityProperty: true }))
      .map((e) => [e.textContent.trim(), e.getBoundingClientRect()]);
    const titles = words(".xtitle, .ytitle, .legendtext"), ticks = words(".xtick text, .ytick text");
    const covers = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
    for (const [text, r] of [...titles, ...ticks])
      if (r.left < frame.left - 1 || r.right > frame.right + 1 || r.top < frame.top - 1 || r.bottom > frame.bottom + 1) found.push(`cut: ${text}`);
    titles.forEach(([text, r], i) => [...titles.slice(i + 1), ...ticks].forEach(([other, o]) => { if (covers(r, o)) found.push(`'${text}' covers '${other}'`); }));
  }
  return found;
}

/** Saves the first chart in every form by the keyboard; gives the charts that cannot be saved. */
async function unsaved(page) {
  const charts = await page.locator(".plot[data-figure]").count();
  if (!charts) return [];
  if (charts * 2 !== (await page.locator(".save button").count())) return ["charts without buttons"];
  const wrong = [];
  for (const format of ["SVG", "PNG"]) {
    const [saved] = await Promise.all([page.waitForEvent("download", { timeout: 20000 }).catch(() => null),
      page.locator(".save button", { hasText: format }).first().press("Enter")]);
    const bytes = saved ? readFileSync(await saved.path()) : Buffer.alloc(0);
    if (!(format === "SVG" ? bytes.toString().includes("</svg>") : bytes.subarray(1, 4).toString() === "PNG")) wrong.push(`no ${format} is saved`);
  }
  return wrong;
}

/** Presses of Tab until the focus is in the part; the menu's button counts as the menu. */
async function tabsTo(page, selector) {
  if (!(await page.locator(selector).count())) return null;
  await page.evaluate(() => { document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute("tabindex"); scrollTo(0, 0); });
  for (let presses = 1; presses <= 150; presses++) {
    await page.keyboard.press("Tab");
    const state = await page.evaluate((s) => { const e = document.activeElement, parts = [...document.querySelectorAll(s)];
      const style = e && getComputedStyle(e);
      return { inside: parts.some((part) => part === e || part.contains(e)), seen: !!e && e !== document.body && style.outlineStyle !== "none" && e.getBoundingClientRect().width > 0 }; }, selector);
    if (state.inside) return state.seen || presses > 1 ? presses : -1;
  }
  return -1;
}

let wrong = 0;
const profile = mkdtempSync(join(tmpdir(), "cmcl-browser-"));
const context = await chromium.launchPersistentContext(profile, { executablePath, headless: true, offline: true, acceptDownloads: true,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"] });
for (const file of files) {
  const page = await context.newPage();
  const errors = [], foreign = [];
  page.on("console", (m) => { if (m.type() === "error" || m.type() === "warning") errors.push(m.text()); });
  page.on("pageerror", (e) => errors.push(e.message));
  page.on("requestfailed", (r) => errors.push(`not loaded: ${r.url()}`));
  page.on("request", (r) => { if (/^(https?|wss?):/.test(r.url())) foreign.push(r.url()); });
  for (const width of [1280, 390, 1920]) {
    await page.setViewportSize({ width, height: width > 800 ? 900 : 844 });
    let contrast = 21, where = "", beyond = 0, widest = [], charts = [];
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await page.goto(pathToFileURL(resolve(file)).href, { waitUntil: "load" });
      await page.waitForTimeout(150);
      const m = await page.evaluate(measure);
      if (m.contrast < contrast) ({ contrast, where } = m);
      if (m.beyond > beyond) ({ beyond, widest } = m);
      if (colorScheme === "light") charts = [...await page.evaluate(misplaced), ...await unsaved(page)];
      if (out) await page.screenshot({ path: join(out, `${basename(dirname(resolve(file)))}-${basename(file, ".html")}-${width}-${colorScheme}.png`) });
    }
    const menu = await tabsTo(page, "nav, #menu-button, [aria-controls]"), main = await tabsTo(page, "main, #content");
    const faults = errors.length + foreign.length + (beyond > 0) + (contrast < 4.5) + (menu === -1) + (main === -1) + charts.length;
    wrong += faults;
    const tabs = (name, n) => n === null ? `no ${name}` : n === -1 ? `${name} NOT reached by Tab` : `${name} after ${n} Tab`;
    console.log(`${faults ? "WRONG" : "ok"} ${file} ${width}: ${errors.length} errors, ${foreign.length} from elsewhere, ${beyond} px too wide${widest.length ? ` (${widest.join(", ")})` : ""}, ` +
      `${tabs("menu", menu)}, ${tabs("main part", main)}, contrast ≥ ${contrast.toFixed(1)}${contrast < 4.5 ? ` ('${where}')` : ""}`);
    for (const text of new Set([...errors, ...foreign, ...charts])) console.log(`    ${text}`);
    errors.length = foreign.length = 0;
  }
  await page.close();
}
await context.close();
rmSync(profile, { recursive: true, force: true });
process.exit(wrong ? 1 : 0);
