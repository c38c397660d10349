const table = document.querySelector(".sortable");
const number = text => Number(text.replace("inf", "Infinity"));
const value = cell => cell.tagName === "TH" ? cell.dataset.value : number(cell.dataset.value);
const compare = (a, b) => typeof a === "string" ? a.localeCompare(b) : a - b;
const columns = [...table?.querySelectorAll("th[data-better]") ?? []]; // without ground truth there is no table
columns.forEach((column, index) => column.querySelector("button").addEventListener("click", () => {
  const worst = column.dataset.better === "low" && index > 0 ? "descending" : "ascending";
  const best = worst === "ascending" ? "descending" : "ascending";
  const order = column.getAttribute("aria-sort") === worst ? best : worst;
  columns.forEach(other => other.removeAttribute("aria-sort"));
  column.setAttribute("aria-sort", order);
  const rows = [...table.tBodies[0].rows].map(row => [value(row.cells[index]), row]);
  rows.sort(([a], [b]) => Number.isNaN(a) || Number.isNaN(b) ? Number.isNaN(a) - Number.isNaN(b)
    : order === "ascending" ? compare(a, b) : compare(b, a));
  const sections = document.getElementById("sections");
  for (const [, row] of rows) {
    table.tBodies[0].append(row);
    sections.append(document.getElementById(row.dataset.scene));
  }
}));
const show = hash => {
  const section = document.getElementById(hash.slice(1));
  if (section?.matches("details")) section.open = true;
};
addEventListener("hashchange", () => show(location.hash));
document.addEventListener("click", event => {
  const link = event.target.closest("a[href^='#']");
  if (link) show(link.getAttribute("href"));
});
show(location.hash);
for (const button of document.querySelectorAll("[data-open]")) button.addEventListener("click", () => {
  for (const section of document.querySelectorAll("details")) section.open = !!button.dataset.open;
});
addEventListener("beforeprint", () => {
  for (const image of document.querySelectorAll("details[open] img")) image.loading = "eager";
});
