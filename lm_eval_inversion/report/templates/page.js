"use strict";
(() => {
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  root.classList.add("scripted");

  // Storage may be refused for files; then the choice lasts as long as the page.
  const stored = (value) => {
    try {
      if (value === undefined) return window.localStorage.getItem("theme");
      window.localStorage.setItem("theme", value);
    } catch (error) { /* see above */ }
    return null;
  };
  const chosen = stored();
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;

  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;  // text only: nothing of a model is ever read as markup
    return made;
  };

  const runData = new Map();
  const dataOf = (key) => {
    if (!runData.has(key)) runData.set(key, JSON.parse(document.getElementById(`${key}-data`).textContent));
    return runData.get(key);
  };

  const startTheme = () => {
    const button = document.getElementById("theme");
    const current = () => root.dataset.theme || (dark.matches ? "dark" : "light");
    const name = () => { button.textContent = current() === "dark" ? "Light" : "Dark"; };
    button.addEventListener("click", () => {
      root.dataset.theme = current() === "dark" ? "light" : "dark";
      stored(root.dataset.theme);
      name();
    });
    dark.addEventListener("change", name);
    name();
  };

  const startFilters = (form) => {
    const list = document.getElementById(form.dataset.list);
    const nothing = list.parentElement.querySelector(".nothing");
    const output = form.querySelector("output");
    const rows = Array.from(list.children, (row) => ({
      row, category: row.dataset.category, band: row.dataset.band, place: Number(row.dataset.place),
      score: row.dataset.score === "" ? NaN : Number(row.dataset.score), text: null,
    }));
    const textOf = (entry) => {
      if (entry.text === null) {
        const parts = [entry.row.querySelector("h4"), ...entry.row.querySelectorAll(".pair .text")];  // not the answers, open or not
        entry.text = parts.map((part) => part.textContent).join("\n").toLowerCase();
      }
      return entry.text;
    };
    let order = "place";
    const apply = () => {
      const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
      const category = form.elements.category.value, band = form.elements.band.value;
      const least = form.elements.least.value === "" ? -Infinity : Number(form.elements.least.value);
      let shown = 0;
      for (const entry of rows) {
        const fits = (!category || entry.category === category) && (!band || entry.band === band)
          && (least === -Infinity || entry.score >= least) && words.every((word) => textOf(entry).includes(word));
        if (entry.row.hidden === fits) entry.row.hidden = !fits;
        shown += fits;
      }
      output.textContent = `${shown} of ${rows.length} shown${form.dataset.of}`;
      nothing.hidden = shown > 0;
      if (form.elements.order.value !== order) {
        order = form.elements.order.value;
        const sign = order === "high" ? -1 : 1;
        const value = (entry) => (order === "place" ? entry.place : Number.isNaN(entry.score) ? Infinity : sign * entry.score);
        rows.sort((one, other) => value(one) - value(other) || one.place - other.place);
        list.append(...rows.map((entry) => entry.row));
      }
    };
    form.addEventListener("input", apply);
    form.addEventListener("change", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => window.setTimeout(apply, 0));
    apply();  // browsers keep what was typed when a page is loaded again
  };

  const fillAnswers = (details) => {
    const prompt = details.closest(".prompt"), data = dataOf(details.closest(".run").id);
    const list = element("ol", "answer-list");
    for (const [place, findings, before, leaked, after, cut] of data.prompts[Number(prompt.dataset.place)]) {
      const item = element("li", findings.split(", ").includes("leaked") ? "leak" : "");
      const head = element("p", "answer-head");
      head.append(element("b", "", data.requests[place][0]), element("span", "", findings));
      item.append(head);
      if (data.requests[place][1]) item.append(element("p", "asked", data.requests[place][1]));
      const text = element("p", "text");
      text.dir = "auto";
      if (before || leaked || after) {
        text.append(before);
        if (leaked) text.append(element("mark", "", leaked));
        text.append(after);
      } else {
        text.classList.add("quiet");
        text.append("nothing");
      }
      if (cut) text.append(element("small", "cut", ` … ${cut} more characters in the results file`));
      item.append(text);
      list.append(item);
    }
    details.append(list);
  };

  const startHeat = (figure) => {
    const run = figure.closest(".run"), told = figure.querySelector(".pointed");
    const at = (event) => {
      const picture = event.target.closest("svg.heat");
      if (!picture) return null;
      const box = picture.getBoundingClientRect(), heat = dataOf(run.id).heat;
      const across = Math.floor((event.clientX - box.left) / box.width * Number(picture.dataset.columns));
      const down = Math.floor((event.clientY - box.top) / box.height * Number(picture.dataset.rows));
      const attack = (heat.groups[Number(picture.dataset.group)] || [])[down], prompt = heat.prompts[across];
      return attack && prompt ? { attack, across, prompt } : null;
    };
    const tell = (cell) => {
      const recovery = cell.attack.recovery[cell.across];
      const words = recovery === null ? "no answer" : `recovery ${recovery}${cell.attack.leaked[cell.across] === "1" ? ", leaked" : ""}`;
      const before = told.textContent;
      told.textContent = `${cell.prompt[1]} × ${cell.attack.id}: ${words}`;
      return told.textContent !== before;
    };
    figure.addEventListener("pointermove", (event) => {
      const cell = at(event);
      if (cell && event.pointerType !== "touch") tell(cell);
    });
    figure.addEventListener("click", (event) => {
      const cell = at(event), link = event.target.closest("a");
      if (link) lead(link.hash.slice(1));
      else if (cell && !(event.pointerType === "touch" && tell(cell))) lead(`${run.id}-prompt-${cell.prompt[0]}`);
    });
    const lead = (name) => {
      const prompt = document.getElementById(name);
      if (prompt.hidden) run.querySelector("form.filters").reset();
      window.setTimeout(() => {
        const answers = prompt.querySelector("details.answers");
        if (answers) answers.open = true;
        prompt.scrollIntoView({ block: "start" });
      }, 10);
    };
  };

  document.addEventListener("DOMContentLoaded", () => {
    startTheme();
    document.querySelectorAll("form.filters").forEach(startFilters);
    document.querySelectorAll("figure[data-figure=heat]").forEach(startHeat);
    document.addEventListener("toggle", (event) => {
      const details = event.target;
      if (details.open && details.matches("details.answers") && details.childElementCount === 1) fillAnswers(details);
    }, true);
    document.addEventListener("click", (event) => {
      const button = event.target.closest("button.unfold");
      if (!button) return;
      const open = button.closest(".prompt").classList.toggle("unfolded");
      button.setAttribute("aria-expanded", String(open));
      button.textContent = open ? "Show less" : "Show all";
    });
  });
})();
