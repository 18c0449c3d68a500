const cmcl = (() => {
  "use strict";
  const pale = "#eef3f8", night = [[0, "#1d2530"], [0.5, "#2b6293"], [1, "#74b9ee"]];
  const pen = document.createElement("canvas").getContext("2d");

  /** Axes that a chart has or is going to have. */
  function axes({ data, layout }) {
    if (data.some((trace) => trace.x || trace.y) && !layout.scene) { layout.xaxis ??= {}; layout.yaxis ??= {}; }
    return Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key)).map((key) => [key[0], layout[key]]);
  }

  /** A chart in the colours of a light or a dark page; what it says of its paper itself stays. */
  function colour(figure, isDark, paper) {
    const { data, layout } = figure;
    layout.font = { ...layout.font, color: isDark ? "#b4bcc8" : "#4b5563" };
    layout.paper_bgcolor ??= "rgba(0,0,0,0)";
    layout.plot_bgcolor ??= "rgba(0,0,0,0)";
    for (const [, axis] of axes(figure))
      for (const line of ["gridcolor", "linecolor", "zerolinecolor"]) axis[line] ??= "rgba(128,128,128,0.25)";
    for (const note of layout.annotations ?? [])
      if (note.xref === "paper") note.bgcolor ??= paper;
    for (const trace of data)
      if (isDark && trace.type === "heatmap" && trace.colorscale?.[0]?.[1] === pale) trace.colorscale = night;
  }

  const wide = (text, size) => { pen.font = `${size}px system-ui, sans-serif`; return pen.measureText(text).width; };

  /** Words in lines that fit. */
  function lines(words, separator, fits) {
    const all = [];
    for (const word of words) {
      const longer = all.length ? all.at(-1) + separator + word : word;
      if (all.length && fits(longer)) all[all.length - 1] = longer; else all.push(word);
    }
    return all;
  }

  /** Titles of axes that are longer than their axis go over several lines. */
  function fitTitles(figure, width, height) {
    for (const [side, axis] of axes(figure)) {
      const title = typeof axis.title === "string" ? { text: axis.title } : axis.title;
      if (!title?.text || title.text.includes("<")) continue;
      const room = Math.max(80, (side === "x" ? width : height) - 80);
      const size = title.font?.size ?? 1.2 * (figure.layout.font.size ?? 12);
      axis.title = { ...title, text: lines(title.text.split(" "), " ", (line) => wide(line, size) <= room).join("<br>") };
    }
  }

  /** As high as a line a name wants it, each as high as its lines of text. */
  const namesHeight = (axis) => 90 + axis.names.length * Math.max(34, 10 + 15 * Math.max(...axis.ticktext.map((text) => text.split("<br>").length)));

  /** A chart as it is saved, on white and at its own size: the source of an SVG, or a PNG in base 64. */
  function picture(figure, format) {
    const { layout } = figure;
    const width = layout.width ?? layout.meta?.width ?? 760;
    const height = layout.height ?? layout.meta?.height ?? (layout.yaxis?.names ? namesHeight(layout.yaxis) : 460);
    layout.font = { ...layout.font, family: "Arial, Liberation Sans, sans-serif" };
    if (!layout.paper_bgcolor || layout.paper_bgcolor === "rgba(0,0,0,0)") layout.paper_bgcolor = "#ffffff";
    colour(figure, false, "#ffffff");
    fitTitles(figure, width, height);
    return Plotly.toImage({ data: figure.data, layout, config: {} },
      { format, width, height, scale: format === "png" ? 3 : 1, imageDataOnly: true });
  }

  return { colour, fitTitles, lines, picture, wide };
})();
