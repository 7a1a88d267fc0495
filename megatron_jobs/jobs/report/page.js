"use strict";
// Tooltips: of whatever has data-tip, and the values of a curve under the pointer.
const tip = document.getElementById("tip");

function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = Math.min(x + 14, innerWidth - box.width - 8);
  const top = y + box.height + 26 > innerHeight ? y - box.height - 12 : y + 18;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}

document.addEventListener("pointermove", (event) => {
  const found = event.target.closest("[data-tip]");
  if (found) showTip(found.dataset.tip, event.clientX, event.clientY);
  else if (!event.target.closest(".canvas")) tip.hidden = true;
});
document.addEventListener("pointerleave", () => { tip.hidden = true; });

// Following a link to a job opens what is folded.
function unfold() {
  const found = location.hash && document.getElementById(location.hash.slice(1));
  if (found && found.tagName === "DETAILS") found.open = true;
}
addEventListener("hashchange", unfold);
unfold();

function nearest(points, step) {
  let best = null;
  for (const point of points) {
    if (best === null || Math.abs(point[0] - step) < Math.abs(best[0] - step)) best = point;
  }
  return best;
}

for (const plot of document.querySelectorAll(".plot")) {
  const { frame, train, validation } = JSON.parse(plot.querySelector("script").textContent);
  const canvas = plot.querySelector(".canvas");
  const cross = plot.querySelector(".cross");
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const step = frame[0] + (frame[1] - frame[0]) * (event.clientX - box.left) / box.width;
    const at = nearest(train.length ? train : validation, step);
    const lines = [`step ${at[0]}`];
    for (const [name, points] of [["training", train], ["validation", validation]]) {
      const point = nearest(points, at[0]);
      if (point) lines.push(`${name} ${point[1] === null ? "not finite" : point[1].toFixed(4)}${point[0] === at[0] ? "" : ` (step ${point[0]})`}`);
    }
    cross.style.display = "block";
    cross.style.left = `${100 * (at[0] - frame[0]) / (frame[1] - frame[0])}%`;
    showTip(lines.join("\n"), event.clientX, event.clientY);
  });
  canvas.addEventListener("pointerleave", () => { cross.style.display = "none"; tip.hidden = true; });
}
