(() => {
  "use strict";
  const media = JSON.parse(document.getElementById("media").textContent);
  for (const image of document.querySelectorAll("img[data-media]")) image.src = media[image.dataset.media];

  // One player for all recordings: what begins to play stops what did.
  const player = new Audio();
  let playing = null;
  const stop = () => {
    player.pause();
    playing?.setAttribute("aria-pressed", "false");
    playing = null;
  };
  player.addEventListener("ended", stop);
  for (const button of document.querySelectorAll("button.play"))
    button.addEventListener("click", () => {
      const again = playing === button;
      stop();
      if (again) return;
      playing = button;
      button.setAttribute("aria-pressed", "true");
      player.src = media[button.dataset.media];
      player.play().catch((e) => {
        if (playing !== button) return;
        stop();
        button.classList.add("failed");
        button.title = `It cannot be played here: ${e.message}`;
      });
    });

  // Methods that are switched off are not shown.
  for (const button of document.querySelectorAll("nav.methods button"))
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      for (const found of document.querySelectorAll(".found"))
        if (found.dataset.method === button.dataset.method) found.hidden = !shown;
    });
})();
