"use strict";

// Sorting: within every group of rows, by number where there is one; what is missing goes last.
function sortBy(header) {
  const table = header.closest("table");
  const rising = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.querySelectorAll("thead th")) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", rising ? "ascending" : "descending");
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
    rows.sort((a, b) => compare(a.cells[header.cellIndex], b.cells[header.cellIndex], rising));
    body.append(...rows);
  }
}

function compare(a, b, rising) {
  const [x, y] = [a, b].map((cell) => (cell.dataset.value ? Number(cell.dataset.value) : NaN));
  const sign = rising ? 1 : -1;
  if (!Number.isNaN(x) && !Number.isNaN(y)) return sign * (x - y);
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
  return sign * a.textContent.trim().localeCompare(b.textContent.trim());
}

// What is behind a cell.
function showRuns(cell) {
  const row = cell.closest("tr");
  const table = cell.closest("table").dataset.table;
  const place = [table, row.dataset.row, cell.dataset.column];
  document.getElementById("runs-title").textContent = cell.getAttribute("aria-label");
  const protocol = cell.closest(".part").querySelector(".note").dataset.protocol;
  const told = [cell.textContent.trim(), cell.dataset.n, `protocol ${protocol}`].filter(Boolean);
  document.getElementById("runs-value").textContent = told.join("; ");
  const keys = cell.dataset.runs.split(" ").map((key) => {
    const item = document.createElement("li");
    item.textContent = key;
    return item;
  });
  document.getElementById("runs-keys").replaceChildren(...keys);
  const options = place.some((part) => part.startsWith("-")) ? "-- " : "";
  document.getElementById("runs-command").textContent = `python -m analysis.trace ${options}${place.map(quoted).join(" ")}`;
  document.getElementById("runs").showModal();
}

// As a shell takes it.
function quoted(text) {
  return /^[\w.,:=+@%/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

// Filters: an element that is tagged with another value than the one chosen is not shown; one without a tag always is.
function filter() {
  const chosen = new FormData(document.getElementById("filters"));
  const fits = (element) =>
    [...chosen].every(([name, value]) => !value || !element.dataset[name] || element.dataset[name] === value);
  for (const element of document.querySelectorAll("[data-dataset], [data-backbone], [data-metric]")) {
    element.hidden = !fits(element);
  }
  for (const body of document.querySelectorAll("tbody")) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
    const heading = body.querySelector(".group");
    if (heading) heading.hidden = rows.every((row) => row.hidden);
  }
  const cards = [...document.querySelectorAll(".cards article")];
  const seen = cards.filter((card) => !card.hidden).length;
  document.getElementById("nothing").hidden = seen > 0;
  document.getElementById("shown").textContent = `${seen} of ${cards.length} restorations`;
}

document.addEventListener("click", (event) => {
  const sort = event.target.closest(".sort");
  const cell = event.target.closest(".cell");
  if (sort) sortBy(sort.closest("th"));
  if (cell) showRuns(cell);
});
document.getElementById("filters").addEventListener("change", filter);
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("filters").reset();
filter();
