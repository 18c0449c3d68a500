(() => {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 640px)");
  const hidden = new Set();

  function draw(plot) {
    const id = plot.dataset.figure;
    const figure = structuredClone((narrow.matches && figures[id + "-narrow"]) || figures[id]);
    figure.layout.font.color = dark.matches ? "#b4bcc8" : "#4b5563";
    figure.layout.showlegend = plot.dataset.legend === "own";
    if (plot.closest(".small"))
      for (const axis of [figure.layout.xaxis, figure.layout.yaxis]) axis.title.text = "";
    for (const trace of figure.data)
      if (hidden.has(trace.meta) && trace.type !== "heatmap") trace.visible = false;
    for (const note of figure.layout.annotations ?? [])
      if (hidden.has(note.name)) note.visible = false;
    Plotly.react(plot, figure.data, figure.layout,
      { responsive: true, displaylogo: false, displayModeBar: false });
  }

  const drawAll = () => plots.forEach(draw);

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

  dark.addEventListener("change", drawAll);
  narrow.addEventListener("change", drawAll);
  drawAll();
})();
