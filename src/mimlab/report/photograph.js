/* Where the attention from a patch of a photograph goes: click a patch, or move with the arrow keys. */
"use strict";

mimlab.start("photograph", (root, data) => {
  const { rows, columns, areas, sizes, classes } = data;
  const canvas = root.querySelector("canvas"), moment = root.querySelector('[name="moment"]');
  const context = canvas.getContext("2d"), side = 32, image = new Image();
  const viridis = [[68, 1, 84], [72, 40, 120], [62, 73, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137],
    [53, 183, 121], [109, 205, 89], [180, 222, 44], [253, 231, 37]];
  let query = areas.findIndex((area) => area === sizes.indexOf(Math.max(...sizes.slice(1)), 1));

  /* Attention of the query on every patch. Its row is that of another patch in an area of the same size: the two areas
     change places, and the query stands where that patch stood. */
  function attention(at) {
    const own = areas[query], like = classes[data.class_of[own]], others = like.others[at];
    return areas.map((area, patch) =>
      patch === query ? like.itself[at] : others[area === own ? like.area : area === like.area ? own : area]);
  }

  function colour(share) {
    const place = share * (viridis.length - 1), low = Math.min(Math.floor(place), viridis.length - 2);
    const mixed = viridis[low].map((one, part) => one + (place - low) * (viridis[low + 1][part] - one));
    return `rgba(${mixed.map(Math.round).join()},${0.75 * share})`;
  }

  function cover(weights, largest) {
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    weights.forEach((weight, patch) => {
      context.fillStyle = colour(weight / largest);
      context.fillRect((patch % columns) * side, Math.floor(patch / columns) * side, side, side);
    });
    context.beginPath();
    areas.forEach((area, patch) => {
      const x = (patch % columns) * side, y = Math.floor(patch / columns) * side;
      if (x > 0 && areas[patch - 1] !== area) { context.moveTo(x, y); context.lineTo(x, y + side); }
      if (y > 0 && areas[patch - columns] !== area) { context.moveTo(x, y); context.lineTo(x + side, y); }
    });
    context.strokeStyle = "rgba(255,255,255,0.45)";
    context.lineWidth = 1.5;
    context.stroke();
    for (const [ink, width] of [["#ffffff", 7], ["#d55e00", 4]]) {
      context.strokeStyle = ink;
      context.lineWidth = width;
      context.strokeRect((query % columns) * side, Math.floor(query / columns) * side, side, side);
    }
  }

  function draw() {
    const at = Number(moment.value), weights = attention(at), own = areas[query];
    const largest = Math.max(...weights);
    cover(weights, largest);
    const sum = (chosen) =>
      weights.reduce((total, one, patch) => total + (patch !== query && chosen(areas[patch]) ? one : 0), 0);
    mimlab.say(root, "largest", `${mimlab.number(largest)} per patch`);
    mimlab.say(root, "itself", mimlab.number(weights[query]));
    mimlab.say(root, "own", mimlab.number(sum((area) => area === own)));
    mimlab.say(root, "global", own === 0 ? "–" : mimlab.number(sum((area) => area === 0)));
    mimlab.say(root, "other", mimlab.number(sum((area) => area !== own && area !== 0)));
    const patches = sizes[own] === 1 ? "a patch that is an area by itself and has nothing to learn from"
      : own === 0 ? `in the largest area, of ${sizes[own]} patches`
      : `in an area of ${sizes[own]} patches; Δ of the patch is ${mimlab.number(data.gaps[sizes[own]], 2)}`;
    mimlab.say(root, "said", `Row ${Math.floor(query / columns)}, column ${query % columns}: ${patches}.`);
  }

  function ask(row, column) {
    if (row < 0 || row >= rows || column < 0 || column >= columns) return;
    query = row * columns + column;
    draw();
  }

  canvas.width = columns * side;
  canvas.height = rows * side;
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    ask(Math.floor((event.clientY - box.top) / box.height * rows),
      Math.floor((event.clientX - box.left) / box.width * columns));
  });
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    ask(Math.floor(query / columns) + move[0], query % columns + move[1]);
  });
  moment.addEventListener("input", () => {
    mimlab.tell(moment);
    draw();
  });
  const words = data.time.map((time) => `t = ${mimlab.number(time)}`);
  mimlab.stops(moment, words, Math.round(0.4 * (words.length - 1)));
  image.addEventListener("load", draw);
  image.src = data.image;
  return draw;
});
