"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const CONFIG = { displayModeBar: false, responsive: true };  // a drag zooms, a double click goes back
  const stored = (name) => { try { return JSON.parse(sessionStorage.getItem(data.id + name)); } catch { return null; } };
  const store = (name, value) => { try { sessionStorage.setItem(data.id + name, JSON.stringify(value)); } catch { /* a page from disk may have no storage */ } };

  // Colours are those of the style sheet, so that there is one place for them.
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const themed = (layout) => {
    const axis = { gridcolor: colour("--grid"), linecolor: colour("--line"), tickcolor: colour("--line") };
    return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--ink"), family: getComputedStyle(document.body).fontFamily, size: 12 },
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
      xaxis: { ...layout.xaxis, ...axis }, yaxis: { ...layout.yaxis, ...axis } };
  };

  // One set of toggles for all figures and tables of a data set.
  const off = data.sections.map((section, index) => new Set(stored("off" + index) ?? section.off));
  const isOn = (section, series) => series == null || [series].flat().some((one) => !off[section].has(one));
  const visible = (gd) => gd.data.map((trace) => isOn(gd.section, trace.meta.series));
  const cells = (gd) => gd.data.map((trace) => trace.meta.cells
    && [trace.z0.map((row, r) => row.map((value, c) => (isOn(gd.section, trace.meta.cells[r][c]) ? value : null)))]);

  function toggled(section) {
    store("off" + section, [...off[section]]);
    for (const box of document.querySelectorAll(`input[data-section="${section}"]`)) box.checked = !off[section].has(+box.value);
    for (const element of document.querySelectorAll(`[data-of="${section}"]`)) {
      const on = JSON.parse(element.dataset.series).some((one) => !off[section].has(one));
      if (element.tagName === "TR") element.classList.toggle("off", !on); else element.hidden = !on;
    }
    for (const gd of plots) {
      if (gd.section !== section || !gd.data) continue;
      Plotly.restyle(gd, { visible: visible(gd) });
      cells(gd).forEach((z, index) => { if (z) Plotly.restyle(gd, { z }, [index]); });
    }
  }

  async function draw() {
    for (const gd of plots) {
      const figure = data.figures[+gd.dataset.figure];
      gd.section = +gd.dataset.section;
      gd.style.height = figure.layout.height + "px";
      gd.setAttribute("role", "img");
      gd.setAttribute("aria-label", figure.label);
      for (const trace of figure.data) {
        if (trace.meta.cells) trace.z0 = trace.z;
        trace.visible = isOn(gd.section, trace.meta.series);
      }
      await Plotly.newPlot(gd, figure.data, { ...figure.layout, ...themed(figure.layout) }, CONFIG);
    }
    data.sections.forEach((_, section) => toggled(section));
    document.body.dataset.drawn = plots.length;
  }
  const retheme = () => plots.forEach((gd) => gd.data && Plotly.relayout(gd, themed(gd.layout)));
  dark.addEventListener("change", retheme);

  // Paper is white and of a width of its own.
  addEventListener("beforeprint", () => plots.forEach((gd) => {
    if (!gd.data) return;
    const width = gd.closest(".wide, .single") ? 960 : gd.closest(".two") ? 470 : 310;
    Plotly.relayout(gd, { ...themed(gd.layout), width });
  }));
  addEventListener("afterprint", () => plots.forEach((gd) => gd.data && Plotly.relayout(gd, { ...themed(gd.layout), width: null, autosize: true })));

  document.addEventListener("change", ({ target }) => {
    if (target.dataset.section === undefined) return;
    const section = +target.dataset.section;
    off[section][target.checked ? "delete" : "add"](+target.value);
    toggled(section);
  });
  document.addEventListener("input", ({ target }) => {
    if (target.type !== "search") return;
    for (const label of target.closest("fieldset").querySelectorAll("label"))
      label.hidden = !label.textContent.toLowerCase().includes(target.value.toLowerCase());
  });
  document.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (!button) return;
    if (button.dataset.all) {
      const section = +button.dataset.sectionAll, all = data.sections[section].series.map((_, index) => index);
      off[section] = new Set({ all: [], none: all, first: data.sections[section].off }[button.dataset.all]);
      toggled(section);
    } else if (button.parentElement.tagName === "TH") sort(button.parentElement);
    else if (button.dataset.run !== undefined) show(+button.dataset.run);
  });

  function sort(th) {
    const table = th.closest("table"), column = [...th.parentElement.children].indexOf(th);
    const falling = th.ariaSort !== "descending" && (th.ariaSort === "ascending" || th.classList.contains("number"));
    for (const other of th.parentElement.children) other.removeAttribute("aria-sort");
    th.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = (row) => row.children[column].dataset.value ?? row.children[column].textContent;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)], [m, n] = [parseFloat(x), parseFloat(y)];
      if (x === "" || y === "") return (x === "") - (y === "");  // what has no value comes last
      const order = Number.isNaN(m) || Number.isNaN(n) ? x.localeCompare(y) : m - n;
      return falling ? -order : order;
    });
    table.tBodies[0].append(...rows);
  }

  function rowsOf(values) {
    const table = document.createElement("table");
    for (const [name, value] of Object.entries(values)) {
      const row = table.insertRow();
      row.insertCell().textContent = name;
      row.insertCell().textContent = value !== null && typeof value === "object" ? JSON.stringify(value) : value;
    }
    return table;
  }
  function show(index) {
    const run = data.runs[index], dialog = document.querySelector("dialog"), details = document.getElementById("run-details");
    document.getElementById("run-name").textContent = run.name;
    details.replaceChildren();
    const add = (title, element) => { const h3 = document.createElement("h3"); h3.textContent = title; details.append(h3, element); };
    const command = document.createElement("p");
    command.append("The same once more: ", Object.assign(document.createElement("code"), { textContent: run.command }));
    details.append(command);
    add("Settings in which it differs from others here", rowsOf(run.settings));
    add("What came out", rowsOf(run.results));
    add("Where it ran", rowsOf(data.environments[run.environment] ?? {}));
    add("Settings that all runs here have", rowsOf(data.common[run.section]));
    dialog.showModal();
    dialog.scrollTop = 0;
  }

  // A page that follows a sweep is loaded again and again, and stays where it was read.
  if (data.watching) {
    const y = stored("y");
    if (y) scrollTo({ top: y, behavior: "instant" });
    addEventListener("pagehide", () => store("y", scrollY));
  }
  draw();
})();
