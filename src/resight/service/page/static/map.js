// The map: a card with the picture of the point under the pointer, and the points that share its label stand out.
"use strict";

function watchMap(figure) {
  const card = figure.querySelector(".map-card");
  const points = [...figure.querySelectorAll("a[data-label]")];
  const rows = [...document.querySelectorAll(".map-table tr[data-label]")];

  function emphasise(label) {
    figure.classList.toggle("has-chosen", Boolean(label));
    for (const point of points) point.classList.toggle("is-chosen", Boolean(label) && point.dataset.label === label);
    for (const row of rows) row.classList.toggle("is-chosen", Boolean(label) && row.dataset.label === label);
  }

  function show(point) {
    const picture = card.querySelector("img");
    picture.hidden = !point.dataset.picture;
    if (point.dataset.picture) picture.src = point.dataset.picture;
    card.querySelector("p").textContent = point.dataset.text;
    const box = figure.getBoundingClientRect();
    const at = point.getBoundingClientRect();
    card.hidden = false;
    const left = at.left - box.left + 18;
    card.style.left = `${left + card.offsetWidth < box.width ? left : Math.max(4, left - card.offsetWidth - 36)}px`;
    card.style.top = `${Math.max(4, Math.min(at.top - box.top - card.offsetHeight / 2, box.height - card.offsetHeight - 4))}px`;
    emphasise(point.dataset.label);
  }

  figure.addEventListener("pointerover", (event) => {
    const point = event.target.closest?.("a[data-label]");
    if (point) show(point);
  });
  figure.addEventListener("pointerout", (event) => {
    if (event.relatedTarget?.closest?.("a[data-label]")) return;
    card.hidden = true;
    emphasise("");
  });
  for (const row of rows) {
    row.addEventListener("pointerenter", () => emphasise(row.dataset.label));
    row.addEventListener("pointerleave", () => emphasise(""));
    row.addEventListener("focusin", () => emphasise(row.dataset.label));
    row.addEventListener("focusout", () => emphasise(""));
  }
}

// The map is there when the page is loaded, or comes when it has been computed.
function watchNewMap() {
  const figure = document.querySelector("figure.map:not(.is-watched)");
  if (!figure) return;
  figure.classList.add("is-watched");
  watchMap(figure);
}

watchNewMap();
document.addEventListener("htmx:after:swap", watchNewMap);
