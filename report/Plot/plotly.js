// Unpacks plotly.js and hands it to every chart of the notebook, those that were drawn up before it came too.
(() => {
  const w = window.cmclPlotly ??= {};
  w.promise ??= new Promise((resolve, reject) => Object.assign(w, { resolve, reject }));
  const unpack = async () => {
    if (window.Plotly) return;
    if (!window.DecompressionStream) throw new Error("this browser has no DecompressionStream, which plotly.js is unpacked with");
    const packed = Uint8Array.from(atob("PACKED"), c => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    // Hidden from the page's module loader, if it has one, so that it sets window.Plotly.
    script.textContent = `(function (define, module, exports) {${await new Response(stream).text()}\n}).call(window)`;
    document.head.appendChild(script);
  };
  unpack().then(() => w.resolve(window.Plotly), w.reject);
})();
