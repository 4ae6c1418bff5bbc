/** Everything that the page looks like: readable in light and dark, on paper and on a narrow screen. */
export const style = `
:root {
  color-scheme: light dark;
  --page: #ffffff; --panel: #f6f7f9; --ink: #1b1f24; --soft: #59636e; --line: #d5dae0; --grid: #e6e9ed;
  --good: #1a7f37; --warn: #9a6700; --bad: #cf222e;
  --c0: #0969da; --c1: #b45309; --c2: #7c3aed; --c3: #0e7490; --c4: #be185d;
  --c5: #5f6b00; --c6: #7c4a21; --c7: #3730a3; --c8: #a21caf; --c9: #475569; --grey: #8c959f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1317; --panel: #171c22; --ink: #e4e9ee; --soft: #9aa5b1; --line: #303840; --grid: #262d35;
    --good: #3fb950; --warn: #d29922; --bad: #f85149;
    --c0: #58a6ff; --c1: #f0a04b; --c2: #bc8cff; --c3: #39c5cf; --c4: #f778ba;
    --c5: #b7c24a; --c6: #cfa67d; --c7: #8b93ff; --c8: #e879f9; --c9: #a8b3c1; --grey: #6e7781;
  }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', sans-serif }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px }
h1 { font-size: 26px; margin: 0 0 4px }
h2 { font-size: 19px; margin: 40px 0 4px }
p { margin: 4px 0 12px; color: var(--soft); max-width: 82ch }
.verdict { display: inline-block; margin: 14px 0 10px; padding: 6px 14px; border-radius: 6px; font-weight: 600; border: 1px solid }
.verdict.good { color: var(--good) } .verdict.bad { color: var(--bad) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 8px 0; font-size: 14px }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
figure { margin: 12px 0 0; padding: 12px; background: var(--panel); border: 1px solid var(--line); border-radius: 8px }
figure h3 { font-size: 15px; margin: 0 0 6px }
.bars { display: grid; grid-template-columns: max-content minmax(0, 1fr) max-content; column-gap: 12px; font-size: 14px; print-color-adjust: exact }
.bar { display: grid; grid-template-columns: subgrid; grid-column: 1 / -1; align-items: center; padding: 3px 0 }
.bar:hover { background: var(--grid) } .bar.axis:hover { background: none }
.track { position: relative; height: 20px; background: repeating-linear-gradient(to right, var(--grid) 0 1px, transparent 1px calc(100% / var(--steps))); border-right: 1px solid var(--grid) }
.track i { position: absolute; top: 0; bottom: 0 }
.track .value { border-radius: 0 3px 3px 0; opacity: 0.85 }
.track .whisker { border: solid var(--ink); border-width: 0 1.5px; top: 5px; bottom: 5px; background: linear-gradient(var(--ink), var(--ink)) center / 100% 1.5px no-repeat }
.track .limit { width: 4px; margin-left: -2px; top: -4px; bottom: -4px; background: var(--ink); border-radius: 2px }
.figure { font-variant-numeric: tabular-nums } .figure small { color: var(--soft); font-size: 13px }
.axis { color: var(--soft); font-size: 12.5px } .axis .name { text-align: right }
.axis .track { background: none; border: 0; height: 16px }
.axis b { position: absolute; font-weight: 400; transform: translateX(-50%) }
svg.lines { display: block; width: 100%; max-width: 600px; height: auto; font-size: 11.5px }
svg.lines text { fill: var(--soft) } svg.lines .label { font-weight: 600 }
svg.lines .grid { stroke: var(--grid) } svg.lines .axis { stroke: var(--line); fill: none }
svg.lines .limit { stroke: var(--ink); stroke-width: 1 } svg.lines .line { fill: none; stroke-width: 1.8 }
svg.lines .strip { fill: var(--ink); fill-opacity: 0 } svg.lines .strip:hover { fill-opacity: 0.1 }
figcaption { color: var(--soft); font-size: 13.5px; padding: 8px 4px 0; max-width: 105ch }
.pair { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)) }
.scroll { overflow-x: auto; margin-top: 10px }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: 5px 10px; border-bottom: 1px solid var(--line); white-space: nowrap }
th { color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom }
td.number, th.number { text-align: right }
td { white-space: normal } td.number { white-space: nowrap }
.download { font-size: 13px; margin: 4px 0 0 } a { color: var(--c0) }
.good { color: var(--good) } .warn { color: var(--warn) } .bad { color: var(--bad) }
code { font: 0.93em ui-monospace, 'DejaVu Sans Mono', monospace }
details.run { margin-top: 40px; border-top: 1px solid var(--line); padding-top: 12px }
summary { cursor: pointer; font-weight: 600 }
@media (max-width: 1000px) { table { font-size: 13px } th, td { padding: 5px 6px } }
@media (max-width: 640px) {
  main { padding: 20px 12px 48px }
  dl { grid-template-columns: 1fr; gap: 0 } dd { margin-bottom: 6px }
  .bars { grid-template-columns: minmax(0, 1fr) max-content }
  .track { grid-row: 2; grid-column: 1 / -1; margin: 2px 4px 4px } .axis .name { display: none }
  table, tbody, tr, td { display: block } thead { display: none }
  tr { border: 1px solid var(--line); border-radius: 8px; padding: 4px 0; margin: 8px 0 }
  td, td.number { display: flex; justify-content: space-between; gap: 16px; border: 0; padding: 2px 12px; white-space: normal; text-align: right }
  td::before { content: attr(data-label); color: var(--soft); text-align: left }
  td:first-child { font-weight: 600 }
}
@media print { body { font-size: 12px } figure { break-inside: avoid } }
`
