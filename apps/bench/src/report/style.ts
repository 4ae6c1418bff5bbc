/** Everything that the page looks like: readable in light and dark, on paper and on a narrow screen. */
export const style = `
:root {
  color-scheme: light dark;
  --page: #ffffff; --panel: #f6f7f9; --ink: #1b1f24; --soft: #59636e; --line: #d5dae0; --grid: #e6e9ed;
  --good: #1a7f37; --warn: #9a6700; --bad: #cf222e;
  --c0: #0969da; --c1: #bc4c00; --c2: #1a7f37; --c3: #8250df; --c4: #bf3989; --c5: #57606a;
  --mark: #1b1f24;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1317; --panel: #171c22; --ink: #e4e9ee; --soft: #9aa5b1; --line: #303840; --grid: #262d35;
    --good: #3fb950; --warn: #d29922; --bad: #f85149;
    --c0: #58a6ff; --c1: #f0883e; --c2: #3fb950; --c3: #bc8cff; --c4: #f778ba; --c5: #8b949e;
    --mark: #e4e9ee;
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
figure svg { display: block; width: 100%; height: auto }
figcaption { color: var(--soft); font-size: 13.5px; padding: 8px 4px 0; max-width: 105ch }
.pair { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)) }
.scroll { overflow-x: auto; margin-top: 10px }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: 5px 10px; border-bottom: 1px solid var(--line); white-space: nowrap }
th { color: var(--soft); font-weight: 600 }
td.number, th.number { text-align: right }
td.wide { white-space: normal; min-width: 200px }
.good { color: var(--good) } .warn { color: var(--warn) } .bad { color: var(--bad) }
code { font: 0.93em ui-monospace, 'DejaVu Sans Mono', monospace }
details.run { margin-top: 40px; border-top: 1px solid var(--line); padding-top: 12px }
summary { cursor: pointer; font-weight: 600 }
@media print { body { font-size: 12px } figure { break-inside: avoid } }
`
