"""The report's style sheet: light or dark as the reader's system is, from a phone's width on."""

STYLE = """\
:root {
  color-scheme: light dark;
  --page: #fbfbfa; --card: #ffffff; --ink: #1f2328; --soft: #5a626c; --rule: #dfe2e6; --grid: #e9ebee;
  --ours: #0b6fb8; --others: #8a6d1f; --paper: #6b7480; --inner: #0a2f4d; --loud: #b3261e;
  --s0: #0b6fb8; --s1: #c2500a; --s2: #0a8262; --s3: #a3458b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1b1f24; --ink: #e6e8eb; --soft: #a2abb6; --rule: #343b44; --grid: #2a3038;
    --ours: #58aef0; --others: #d9b24c; --paper: #98a2ae; --inner: #e6f3ff; --loud: #ff8a80;
    --s0: #58aef0; --s1: #f0924e; --s2: #4fc7a1; --s3: #dd8fc6;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 1.2rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.4rem 0; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 0.6rem; padding-top: 0.8rem; border-top: 1px solid var(--rule); }
p { max-width: 46rem; margin: 0.5rem 0; }
a { color: var(--ours); }
nav ul { display: flex; flex-wrap: wrap; gap: 0.3rem 1.1rem; padding: 0; list-style: none; }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 29rem), 1fr)); }
figure { margin: 0; padding: 0.8rem; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; }
.figures figure { max-width: 44rem; }
figure h3 { font-size: 1rem; margin: 0 0 0.4rem; }
figcaption, .from { color: var(--soft); font-size: 0.85rem; overflow-wrap: anywhere; }
.from { max-width: none; margin: 0.4rem 0; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 0.92em; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  margin: 0.8rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.35rem 0.7rem; text-align: left; border-bottom: 1px solid var(--grid); vertical-align: top; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
td.number { text-align: right; white-space: nowrap; }
th.number { text-align: right; }
tbody tr:last-child td { border-bottom: 0; }
td { min-width: 5.5rem; }
td.number { min-width: 0; }
td:first-child { min-width: 8rem; }
details { margin: 1rem 0; }
summary { cursor: pointer; font-weight: 600; }
.loud { border: 2px solid var(--loud); border-radius: 8px; padding: 0.5rem 0.8rem; color: var(--loud);
  font-weight: 700; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font-size: 14px; font-family: inherit; }
svg text.tick, svg text.label { fill: var(--soft); }
svg .name { paint-order: stroke; stroke: var(--card); stroke-width: 3px; stroke-linejoin: round; }
svg .value { font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--grid); }
svg .axis { stroke: var(--soft); }
svg .lead { stroke: var(--soft); stroke-width: 0.8; }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; }
svg .frontier { fill: none; stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .roof { fill: none; stroke: var(--ink); stroke-width: 1.5; }
svg .dot { fill-opacity: 0.55; stroke-width: 1.5; }
svg .dot.hollow { fill-opacity: 0; stroke-width: 2; }
svg .cross { fill: none; stroke-width: 2.5; }
svg .hill { fill-opacity: 0.6; }
.ours { fill: var(--ours); stroke: var(--ours); background: var(--ours); }
.others { fill: var(--others); stroke: var(--others); background: var(--others); }
.paper { fill: var(--paper); stroke: var(--paper); background: var(--paper); }
.paper-own { fill: var(--s3); stroke: var(--s3); background: var(--s3); }
.inner { fill: var(--inner); stroke: none; background: var(--inner); }
.bar { stroke: none; }
.series-0 { fill: var(--s0); stroke: var(--s0); background: var(--s0); }
.series-1 { fill: var(--s1); stroke: var(--s1); background: var(--s1); }
.series-2 { fill: var(--s2); stroke: var(--s2); background: var(--s2); }
.series-3 { fill: var(--s3); stroke: var(--s3); background: var(--s3); }
.key { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 50%; margin: 0 0.35em 0 0.8em; }
.key:first-child { margin-left: 0; }
"""
