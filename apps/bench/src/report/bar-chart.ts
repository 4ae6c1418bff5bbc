import { escapeText } from './html.ts'
import { niceTicks } from './scales.ts'

export interface Bar {
  /** Stands before the bar. */
  readonly name: string
  readonly value: number
  readonly least: number
  readonly most: number
  readonly colour: string
  /** What the machine can do at most, and what it is. */
  readonly limit?: { readonly value: number; readonly title: string } | undefined
  /** Stands behind the figure, in words. */
  readonly remark?: string | undefined
}

/**
 * Lying bars with a whisker from the least to the greatest round and a mark for the limit, the figure behind each. Made of HTML, so that
 * text keeps its size on every screen; pointing at a bar tells all of its figures.
 */
export function barChart(
  title: string,
  unit: string,
  bars: readonly Bar[],
  { digits = 2 }: { readonly digits?: number } = {},
): string | undefined {
  if (bars.length === 0) return undefined
  const ticks = niceTicks(Math.max(...bars.map(({ most, limit }) => Math.max(most, limit?.value ?? 0))))
  const end = ticks.at(-1)!
  const percent = (value: number) => `${+((value / end) * 100).toFixed(2)}%`
  const figureOf = (value: number) => `${value.toFixed(digits)} ${unit}`
  const words = bars.map(({ name, value, least, most, limit, remark }) =>
    [
      `${name}: ${figureOf(value)}, rounds from ${least.toFixed(digits)} to ${most.toFixed(digits)}`,
      limit === undefined ? undefined : `${limit.title} ${figureOf(limit.value)}`,
      remark,
    ]
      .filter((part) => part !== undefined)
      .join('; '),
  )
  const rows = bars.map((bar, index) => {
    const marks = [
      `<i class="value" style="width:${percent(bar.value)};background:${bar.colour}"></i>`,
      `<i class="whisker" style="left:${percent(bar.least)};width:${percent(bar.most - bar.least)}"></i>`,
      bar.limit === undefined ? '' : `<i class="limit" style="left:${percent(bar.limit.value)}"></i>`,
    ]
    const remark = bar.remark === undefined ? '' : ` <small>${escapeText(bar.remark)}</small>`
    return (
      `<div class="bar" title="${escapeText(words[index])}"><span class="name">${escapeText(bar.name)}</span>` +
      `<span class="track">${marks.join('')}</span><span class="figure">${bar.value.toFixed(digits)}${remark}</span></div>`
    )
  })
  const axis = ticks.map((tick) => `<b style="left:${percent(tick)}">${tick}</b>`).join('')
  const label = escapeText(`${title}, in ${unit}. ${words.join('. ')}.`)
  return (
    `<div class="bars" role="img" aria-label="${label}" style="--steps:${ticks.length - 1}">${rows.join('\n')}` +
    `<div class="bar axis"><span class="name">${escapeText(unit)}</span><span class="track">${axis}</span><span class="figure"></span></div></div>`
  )
}
