/* Sliders over recorded runs: attention and correlations of one query through training. */
"use strict";

mimlab.start("explorer", (root, data) => {
  const control = (name) => root.querySelector(`[name="${name}"]`);
  const plot = root.querySelector(".plot");
  const latentWords = ([low, high]) =>
    low === high ? `constant, z = ${low}` : `${low} to ${high}: U/L = ${mimlab.number(high / low)}`;
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  const distinct = (values) =>
    values.filter((one, place) => values.findIndex((other) => same(one, other)) === place);

  /* What can be chosen, given the objective: its values of each axis, in order. */
  const axes = {
    latent: (run) => run.latent,
    gap: (run) => run.global_exponent,
    ratio: (run) => run.mask_ratio,
  };
  const chosen = { objective: data.runs[0].objective };
  const stops = {};
  let run = null;

  function fill(select, words, at) {
    select.replaceChildren(...words.map((text, place) => new Option(text, place, false, place === at)));
    select.disabled = words.length < 2;
  }

  /* The place of the value nearest to the one wanted; of latents the one that is equal, else the first. */
  function nearest(values, wanted) {
    const off = values.map((one) =>
      Array.isArray(one) ? Number(!same(one, wanted)) : Math.abs(one - (wanted ?? values.at(-1))));
    return off.indexOf(Math.min(...off));
  }

  function chooseObjective(objective, wanted) {
    const runs = data.runs.filter((one) => one.objective === objective);
    chosen.objective = objective;
    for (const [name, value] of Object.entries(axes)) {
      const values = distinct(runs.map(value));
      stops[name] = values;
      chosen[name] = values[nearest(values, wanted[name])];
    }
    fill(control("latent"), stops.latent.map(latentWords), nearest(stops.latent, chosen.latent));
    const gaps = stops.gap.map((exponent) => {
      const gap = runs.find((one) => one.global_exponent === exponent).information_gap;
      return `${mimlab.number(gap, 2)} (κc = ${exponent})`;
    });
    mimlab.stops(control("gap"), gaps, nearest(stops.gap, chosen.gap));
    mimlab.stops(control("ratio"), stops.ratio.map(String), nearest(stops.ratio, chosen.ratio));
    chooseRun();
  }

  /* The first run is shown at half attention; another keeps the share of its recorded times that has gone by. */
  function chooseRun() {
    const moment = control("moment"), share = run && Number(moment.value) / Number(moment.max);
    run = data.runs.find((one) => one.objective === chosen.objective
      && Object.entries(axes).every(([name, value]) => same(value(one), chosen[name])));
    const last = run.time.length - 1;
    const at = share === null ? run.time.findLastIndex((t) => t <= (run.half_time ?? Infinity)) : Math.round(share * last);
    mimlab.stops(moment, run.time.map((t) => `t = ${mimlab.number(t)}`), at);
    draw();
  }

  function tell(at) {
    for (const name of ["attention_own", "attention_global", "phi_own", "phi_global"]) {
      const error = run[`${name}_se`]?.[at];
      const spread = error ? ` ± ${mimlab.number(2 * error, 2)}` : "";
      mimlab.say(root, name, mimlab.number(run[name][at]) + spread);
    }
    const list = root.querySelector(".phases");
    list.replaceChildren(...run.phases.map((one) => {
      const item = document.createElement("li");
      item.className = one.name;
      item.textContent = `${one.name} until t = ${mimlab.number(one.end)}`;
      if (one.name === run.phase[at]) item.setAttribute("aria-current", "true");
      return item;
    }));
    mimlab.say(root, "said", [
      run.half_time === null ? "Half attention is never reached."
        : `Half attention on the ${run.objective === "masked" ? "own" : "global"} area at t = `
          + `${mimlab.number(run.half_time)}.`,
      run.first_rates !== null && `At the start Φ of the global area falls ${mimlab.number(run.first_rates)} times as `
        + `fast as Φ of the own area rises (for z = 1, (1−γ) P^Δ of this query is `
        + `${mimlab.number(run.predicted_rates)}): ${run.first_rates >= 1 ? "two phases" : "one phase"}.`,
    ].filter(Boolean).join(" "));
    mimlab.say(root, "command", run.command, /(?<!\S)(--[\w-]+)/, "span", "flag");  // may wrap, but not in a flag
    plot.setAttribute("aria-label",
      `Attention and correlations of one query against time. At t = ${mimlab.number(run.time[at])}: `
      + `attention ${mimlab.number(run.attention_own[at])} on the own area, `
      + `${mimlab.number(run.attention_global[at])} on the global area.`);
  }

  function draw() {
    const at = Number(control("moment").value), first = run.time.find((t) => t > 0);
    const now = Math.max(run.time[at], first);
    const ink = mimlab.colour("ink"), line = mimlab.colour("line");
    const curve = (name, colour, title, axis, dash) => ({
      x: run.time, y: run[name], name: title, mode: "lines", yaxis: axis, hovertemplate: "%{y:.3g}",
      line: { color: mimlab.colour(colour), width: 2.5, dash },
    });
    const mark = (name, colour, axis) => ({
      x: [now], y: [run[name][at]], mode: "markers", yaxis: axis, showlegend: false, hoverinfo: "skip",
      cliponaxis: false,
      marker: { color: mimlab.colour(colour), size: 11, line: { color: mimlab.colour("paper"), width: 2 } },
    });
    const measures = [
      ["attention_own", "own", "own area", "y2"], ["attention_global", "global", "global area", "y2", "dash"],
      ["phi_own", "own", "own area", "y"], ["phi_global", "global", "global area", "y", "dash"],
    ];
    const traces = measures.map(([name, colour, title, axis, dash]) => ({
      ...curve(name, colour, title, axis, dash), showlegend: axis === "y2",
    })).concat(measures.map(([name, colour, , axis]) => mark(name, colour, axis)));
    const bands = run.phases.filter((phase) => phase.end > first).map((phase) => ({
      type: "rect", layer: "below", xref: "x", yref: "paper", y0: 0, y1: 1, line: { width: 0 },
      x0: Math.max(phase.start, first), x1: phase.end, fillcolor: mimlab.colour(phase.name), opacity: 0.18,
    }));
    const marker = {
      type: "line", layer: "below", xref: "x", yref: "paper", x0: now, x1: now, y0: 0, y1: 1,
      line: { color: ink, width: 1.5, dash: "dot" },
    };
    const powers = Array.from({ length: 40 }, (_, place) => 10 ** (place - 20));
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, tickfont: { size: 12 }, fixedrange: true };
    Plotly.react(plot, traces, {
      height: 460, margin: { l: 48, r: 12, t: 28, b: 44 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, size: 13, family: getComputedStyle(document.body).fontFamily },
      hovermode: "x", showlegend: true, legend: { orientation: "h", x: 0, y: 1.06, yanchor: "middle" },
      xaxis: { ...axis, type: "log", title: { text: "time (learning rate × steps)", standoff: 8 },
        range: [Math.log10(first), Math.log10(run.time.at(-1))],
        tickvals: powers, ticktext: powers.map((one) => mimlab.number(one)) },
      yaxis: { ...axis, domain: [0, 0.47], title: { text: "Φ", standoff: 4 } },
      yaxis2: { ...axis, domain: [0.53, 1], anchor: "x", range: [-0.03, 1.03],
        title: { text: "attention", standoff: 4 } },
      shapes: [...bands, marker],
    }, { displayModeBar: false, responsive: true });
    tell(at);
  }

  const objectives = distinct(data.runs.map((one) => one.objective));
  fill(control("objective"), objectives, 0);
  control("objective").addEventListener("change", (event) =>
    chooseObjective(objectives[Number(event.target.value)], { ...chosen }));
  for (const name of Object.keys(axes)) {
    control(name).addEventListener("input", (event) => {
      chosen[name] = stops[name][Number(event.target.value)];
      if (event.target.type === "range") mimlab.tell(event.target);
      chooseRun();
    });
  }
  control("moment").addEventListener("input", (event) => {
    mimlab.tell(event.target);
    draw();
  });
  chooseObjective(objectives[0], { gap: 0.9, ratio: 0.75 });
  return draw;
});
