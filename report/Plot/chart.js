(async () => {
  const place = document.getElementById("PLACE");
  const w = window.cmclPlotly ??= {};
  w.promise ??= new Promise((resolve, reject) => Object.assign(w, { resolve, reject }));
  try {
    const plotly = window.Plotly ?? await w.promise;
    const { data, layout, config } = FIGURE;
    place.replaceChildren();
    place.style.overflowX = "auto";
    await plotly.newPlot(place, data, layout, { ...config, displaylogo: false, displayModeBar: false });
  } catch (e) {
    place.textContent = `This chart cannot be drawn: ${e.message}`;
  }
})();
