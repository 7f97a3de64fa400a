// Sorts and filters tables of class "verdicts": th[data-sort] gets a button, th[data-filter] a menu.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("table.verdicts").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const value = (row, column) =>
      (row.cells[column].dataset.value ?? row.cells[column].textContent).trim();

    const bar = document.createElement("form");
    bar.className = "verdicts-filter";
    bar.addEventListener("submit", (event) => event.preventDefault());
    const count = document.createElement("output");
    const conditions = [];

    const filter = () => {
      let shown = 0;
      for (const row of rows) {
        row.hidden = !conditions.every((holds) => holds(row));
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = `${shown} of ${rows.length}`;
    };
    const add = (text, control, holds) => {
      const label = document.createElement("label");
      label.append(text + " ", control);
      for (const event of ["input", "change"]) control.addEventListener(event, filter);
      conditions.push(holds);
      bar.append(label);
    };

    const words = document.createElement("input");
    words.type = "search";
    add("Find", words, (row) =>
      row.textContent.toLowerCase().includes(words.value.trim().toLowerCase()),
    );
    heads.forEach((head, column) => {
      if (!("filter" in head.dataset)) return;
      const menu = document.createElement("select");
      const values = [...new Set(rows.map((row) => value(row, column)))].sort();
      menu.append(new Option("all", ""), ...values.map((it) => new Option(it, it)));
      add(head.textContent, menu, (row) => !menu.value || value(row, column) === menu.value);
    });

    heads.forEach((head, column) => {
      if (!("sort" in head.dataset)) return;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.ariaSort === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.ariaSort = down ? "descending" : "ascending";
        const order = (a, b) =>
          value(a, column).localeCompare(value(b, column), "en", { numeric: true });
        rows.sort((a, b) => (down ? order(b, a) : order(a, b)));
        body.append(...rows);
      });
    });

    bar.append(count);
    const place = table.closest(".verdicts-scroll") ?? table;
    place.before(bar);
    filter();
  });
});
