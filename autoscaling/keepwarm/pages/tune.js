"use strict";
// The points of the front: pointing at one tells its settings; a row of the table does the same.
const points = JSON.parse(document.getElementById("points").textContent);
const told = document.getElementById("point");
const rows = document.querySelectorAll("[data-point]");

function show(number) {
  const point = points[number];
  told.textContent = "";
  const head = document.createElement("b");
  head.textContent = `${point.cost} a day, ${point.exposure} cold: `;
  told.append(head, Object.entries(point.knobs).map(([name, value]) => `${name} ${value}`).join(", "));
  rows.forEach((row) => row.classList.toggle("chosen", row.dataset.point === String(number)));
  points.forEach((_, at) => {
    const dot = document.getElementById(`front-${at}`);
    if (dot) dot.style.strokeWidth = at === number ? "4" : "";
    if (dot) dot.classList.toggle("shown", at === number);
  });
}

points.forEach((point, number) => {
  const dot = document.getElementById(`front-${number}`);
  if (!dot) return;
  dot.setAttribute("tabindex", "0");
  dot.setAttribute("role", "button");
  dot.setAttribute("aria-label", `${point.cost} a day, ${point.exposure} cold`);
  dot.style.cursor = "pointer";
  for (const event of ["mouseenter", "click", "focus"]) dot.addEventListener(event, () => show(number));
});
rows.forEach((row) => row.addEventListener("click", () => show(Number(row.dataset.point))));
