/* What the interactive parts of a page share. */
"use strict";

const mimlab = {
  /* A number as the rest of the page writes it, to so many significant digits; whole numbers are rounded like others. */
  number(value, digits = 3) {
    if (value === null || value === undefined) return "–";
    const sign = value < 0 ? "−" : "", size = Math.abs(value);
    if (size === 0) return "0";
    const [mantissa, power] = size.toExponential(digits - 1).split("e").map(Number);
    if (-4 < power && power < 5) return sign + Number(size.toPrecision(digits)).toString();
    const raised = String(power).replace(/[-\d]/g, (one) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(one)]);
    return `${sign}${mantissa === 1 ? "" : `${mantissa}×`}10${raised}`;
  },

  /* The colour that the stylesheet gives a name, in the light or the dark. */
  colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  },

  /* Text into the element marked data-shown="name", if it is new: a screen reader says what is put there. What a pattern
     catches stands in an element of its own. */
  say(root, name, text, pattern = /\^(\S+)/, tag = "sup", style = "") {
    const place = root.querySelector(`[data-shown="${name}"]`);
    if (place.said === text) return;
    place.said = text;
    place.replaceChildren(...text.split(pattern).map((part, odd) => odd % 2 === 0 ? part
      : Object.assign(document.createElement(tag), { className: style, textContent: part })));
  },

  /* Give a slider its stops, their words, and stop `at`; with one stop there is nothing to move. */
  stops(input, words, at) {
    input.max = words.length - 1;
    input.value = at;
    input.disabled = words.length < 2;
    input.words = words;
    mimlab.tell(input);
  },

  /* Say in words where a slider stands, beside it and to screen readers. */
  tell(input) {
    const words = input.words[Number(input.value)];
    input.setAttribute("aria-valuetext", words);
    input.nextElementSibling.textContent = words;
  },

  /* Show every widget of a kind, built from its data, and draw it again when light turns to dark. */
  start(kind, build) {
    for (const root of document.querySelectorAll(`.widget[data-kind="${kind}"]`)) {
      root.hidden = false;
      const redraw = build(root, JSON.parse(root.querySelector('script[type="application/json"]').textContent));
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    }
  },
};
