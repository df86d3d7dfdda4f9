"""The look of every page: one column, system fonts, light and dark, readable from a telephone to a desk."""

STYLESHEET = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1f2328; --faint: #57606a; --line: #d0d7de; --panel: #f6f8fa; --link: #0550ae;
  --holds: #00573f; --holds-back: #d7f2e8; --fails: #8a2d00; --fails-back: #fde6d8;
  --inconclusive: #424a53; --inconclusive-back: #e7ebef;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181d; --ink: #e6e9ec; --faint: #a3adb8; --line: #3a434d; --panel: #1e242b; --link: #79b8ff;
    --holds: #8fe3c3; --holds-back: #0d3b2e; --fails: #ffb48a; --fails-back: #4d2009;
    --inconclusive: #ccd3da; --inconclusive-back: #333c46;
  }
  figure img { filter: brightness(0.92); }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 52rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Helvetica, Arial, sans-serif;
  overflow-wrap: break-word;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 0.5rem; }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 2.75rem 0 0.4rem; padding-top: 1.2rem; }
h2 { border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 0.4rem; }
p { margin: 0.5rem 0; }
.lead { font-size: 1.1rem; }
.faint, figcaption, footer { color: var(--faint); font-size: 0.9rem; }
a { color: var(--link); }
figure { margin: 1rem 0; }
figure img {
  display: block; width: 100%; max-width: 46rem; height: auto; background: #ffffff; padding: 0.5rem;
  border: 1px solid var(--line); border-radius: 6px;
}
figcaption { margin-top: 0.3rem; }
nav { margin: 1.25rem 0; }
nav ul { columns: 20rem; margin: 0.3rem 0; padding-left: 1.2rem; }
.scroll { overflow-x: auto; margin: 0.75rem 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.93rem; }
caption { text-align: left; color: var(--faint); padding-bottom: 0.3rem; }
th, td { text-align: left; vertical-align: top; padding: 0.4rem 0.75rem 0.4rem 0; }
th[scope="row"] { font-weight: normal; }
th, td { border-bottom: 1px solid var(--line); }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.words { min-width: 14rem; }
.badge {
  display: inline-block; padding: 0.05rem 0.55rem; border-radius: 1rem; font-size: 0.9rem; font-weight: 600;
  white-space: nowrap; border: 1px solid currentColor; margin-block: 0.1rem;
}
.holds { color: var(--holds); background: var(--holds-back); }
.fails { color: var(--fails); background: var(--fails-back); }
.inconclusive { color: var(--inconclusive); background: var(--inconclusive-back); }
h3 .badge { margin: 0 0.3rem; }
h3 .badge:first-child { margin-left: 0; }
h3 .faint { font-weight: normal; }
sub, sup { line-height: 0; font-size: max(0.78em, 0.75rem); }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: 0.25rem 1rem; }
dl { margin: 0.75rem 0; }
dt { color: var(--faint); }
dd { margin: 0; min-width: 0; }
pre {
  background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: 0.6rem 0.75rem;
  white-space: pre-wrap; overflow-wrap: anywhere; margin: 0.6rem 0;
  max-height: 20rem; overflow-y: auto;
}
code { font: 0.88rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
.flag { white-space: nowrap; }
@media (max-width: 34rem) {
  body { padding: 1rem 0.75rem 3rem; }
  h1 { font-size: 1.4rem; }
  h2 { font-size: 1.2rem; }
  th, td { padding-right: 0.5rem; }
  .badge { padding-inline: 0.35rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 0.5rem; }
  figure img { padding: 0.2rem 0; border-width: 1px 0; border-radius: 0; }
  figure { margin-inline: -0.75rem; }
  figcaption { margin-inline: 0.75rem; }
}
@media print {
  body { max-width: none; }
  figure, pre, tr { break-inside: avoid; }
  pre { max-height: none; }
}
"""
