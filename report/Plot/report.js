(() => {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 640px)");
  const hidden = new Set();
  const { colour, fitTitles, lines, picture, wide } = cmcl;

  /** Hides what belongs to the methods that are switched off. */
  function hide({ data, layout }) {
    for (const trace of data)
      if (hidden.has(trace.meta) && trace.type !== "heatmap") trace.visible = false;
    for (const note of layout.annotations ?? [])
      if (hidden.has(note.name)) note.visible = false;
  }

  /** On a narrow page names stand above their lines; gives the height in pixels that this takes. */
  function namesAbove(layout, width) {
    const axis = layout.yaxis, size = layout.font?.size ?? 12;
    const names = axis.ticktext.map((text) => lines(text.split("<br>"), "", (line) => wide(line, size) <= width - 60));
    layout.annotations = [...(layout.annotations ?? []), ...axis.tickvals.map((y, i) => ({
      name: axis.names[i], text: names[i].join("<br>"), align: "left", xref: "paper", x: 0, xanchor: "left",
      y: y + 0.14, yanchor: "bottom", borderpad: 0, showarrow: false }))];
    axis.ticktext = axis.tickvals.map(() => "");
    axis.range[1] += 0.3;
    return 90 + axis.names.length * (31 + 15 * Math.max(1, ...names.map((n) => n.length)));
  }

  /** Breaks names that are wider than the page, sets the legend above the chart, and gives the height in pixels that it takes. */
  function fitLegend({ data, layout }, width) {
    const shown = data.filter((trace) => trace.name && trace.showlegend !== false && trace.type !== "heatmap");
    if (shown.length < 2) return 0;
    const size = layout.font?.size ?? 12, room = width - 70;
    for (const trace of shown)
      trace.name = lines(trace.name.split(/(?<=[\[;,])/), "", (line) => wide(line, size) <= room).join("<br>");
    if (narrow.matches)
      layout.legend = { ...layout.legend, orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom" };
    if (layout.legend?.orientation !== "h") return 0;
    const widest = Math.max(...shown.flatMap((trace) => trace.name.split("<br>").map((line) => wide(line, size)))) + 50;
    const columns = Math.max(1, Math.floor((width - 60) / widest));
    const rows = Math.ceil(shown.length / columns), tallest = Math.max(...shown.map((trace) => trace.name.split("<br>").length));
    return 16 * rows * tallest + 8;
  }

  function fail(plot, text) {
    Plotly.purge(plot);
    plot.classList.add("failure");
    plot.textContent = text;
  }

  async function draw(plot) {
    const given = figures[plot.dataset.figure];
    try {
      if (plot.classList.contains("failure")) { plot.classList.remove("failure"); plot.replaceChildren(); }
      if (given.failure) return fail(plot, given.failure);
      const figure = structuredClone(given), { layout } = figure;
      // The place decides.
      delete layout.width;
      delete layout.height;
      plot.style.height = "";
      if (narrow.matches) {
        const { height, ...changes } = layout.meta?.narrow ?? {};
        Object.assign(layout, changes);
        if (height) plot.style.height = `${height}px`;
        if (layout.yaxis?.names) plot.style.height = `${namesAbove(layout, plot.clientWidth)}px`;
      }
      layout.showlegend = plot.dataset.legend === "own";
      const height = plot.clientHeight;
      if (layout.showlegend) plot.style.height = `${height + fitLegend(figure, plot.clientWidth)}px`;
      colour(figure, dark.matches, getComputedStyle(document.body).backgroundColor);
      fitTitles(figure, plot.clientWidth, height);
      hide(figure);
      await Plotly.react(plot, figure.data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
    } catch (e) {
      fail(plot, `This chart could not be drawn: ${e.message}`);
    }
  }

  const drawAll = () => plots.forEach(draw);
  const heading = (plot) => (plot.closest("figure")?.querySelector("h3") ?? plot.closest("section")?.querySelector("h2") ?? document.querySelector("h1"))?.textContent ?? "chart";
  const slug = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 80);

  /** Saves a chart whatever the page's width and colours are, without what is switched off. */
  async function save(plot, format) {
    const figure = structuredClone(figures[plot.dataset.figure]);
    hide(figure);
    const image = await picture(figure, format);
    const blob = format === "svg" ? new Blob([image], { type: "image/svg+xml" })
      : new Blob([Uint8Array.from(atob(image), (c) => c.charCodeAt(0))], { type: "image/png" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${slug(document.title)}-${slug(heading(plot))}-${slug(plot.dataset.figure)}.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  for (const plot of plots) {
    const bar = document.createElement("div");
    bar.className = "save";
    for (const format of ["svg", "png"]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = format.toUpperCase();
      button.title = `Save this chart as ${format.toUpperCase()}`;
      button.setAttribute("aria-label", `Save “${heading(plot)}” as ${format.toUpperCase()}`);
      button.addEventListener("click", () => save(plot, format).catch((e) => alert(`This chart could not be saved: ${e.message}`)));
      bar.append(button);
    }
    plot.after(bar);
  }

  for (const select of document.querySelectorAll("select[data-plot]"))
    select.addEventListener("change", () => {
      const plot = document.getElementById(select.dataset.plot);
      plot.dataset.figure = select.value;
      draw(plot);
    });

  for (const button of document.querySelectorAll("nav.methods button"))
    button.addEventListener("click", () => {
      const method = button.dataset.method;
      if (!hidden.delete(method)) hidden.add(method);
      button.setAttribute("aria-pressed", String(!hidden.has(method)));
      drawAll();
    });

  // What is wider than its box says so, on the side where there is more, and the keyboard reaches it.
  for (const box of document.querySelectorAll(".scroll, nav.methods div")) {
    const tell = () => {
      const left = box.scrollLeft > 1, right = box.scrollLeft + box.clientWidth < box.scrollWidth - 1;
      box.dataset.more = `${left ? "left" : ""} ${right ? "right" : ""}`.trim();
      if (!box.matches(".scroll")) return;
      for (const [name, value] of [["tabindex", "0"], ["role", "region"], ["aria-label", "table, scrolls sideways"]])
        if (left || right) box.setAttribute(name, value); else box.removeAttribute(name);
    };
    const watch = new ResizeObserver(tell);
    watch.observe(box);
    for (const child of box.children) watch.observe(child);
    box.addEventListener("scroll", tell, { passive: true });
  }

  dark.addEventListener("change", drawAll);
  narrow.addEventListener("change", drawAll);
  drawAll();
})();
