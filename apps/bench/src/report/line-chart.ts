import { escapeText } from './html.ts'

export interface Line {
  readonly name: string
  readonly colour: string
  readonly dash?: string | undefined
  readonly points: readonly (readonly [number, number])[]
}

export interface Axis {
  readonly title: string
  /** The first and the last are the ends of the axis. */
  readonly ticks: readonly number[]
  readonly labels?: readonly string[]
  readonly logarithmic?: boolean
}

export interface LineChart {
  /** What it shows, for people who do not see it. */
  readonly title: string
  readonly x: Axis
  readonly y: Axis
  readonly lines: readonly Line[]
  /** Horizontal lines with a name. */
  readonly limits?: readonly { readonly name: string; readonly y: number }[]
  /** What pointing at a value of x tells; the values are where that can be done. */
  readonly tooltips: readonly { readonly x: number; readonly text: string }[]
}

const width = 480
const height = 290
const plot = { left: 52, right: width - 136, top: 10, bottom: height - 40 }
const labelHeight = 13
const labelCharacters = 16

/** Draws lines as SVG text, each with its name and a piece of itself at its end. */
export function lineChart(chart: LineChart): string {
  const x = scaleOf(chart.x, plot.left, plot.right)
  const y = scaleOf(chart.y, plot.bottom, plot.top)
  const parts = [
    ...chart.y.ticks.map((tick, index) => {
      const at = round(y(tick))
      return (
        `<path class="grid" d="M${plot.left} ${at}H${plot.right}"/>` +
        `<text x="${plot.left - 6}" y="${at + 4}" text-anchor="end">${escapeText(chart.y.labels?.[index] ?? tick)}</text>`
      )
    }),
    ...chart.x.ticks.map(
      (tick, index) =>
        `<text x="${round(x(tick))}" y="${plot.bottom + 15}" text-anchor="middle">${escapeText(chart.x.labels?.[index] ?? tick)}</text>`,
    ),
    `<path class="axis" d="M${plot.left} ${plot.top}V${plot.bottom}H${plot.right}"/>`,
    `<text class="title" x="${(plot.left + plot.right) / 2}" y="${height - 6}" text-anchor="middle">${escapeText(chart.x.title)}</text>`,
    `<text class="title" transform="rotate(-90)" x="${-(plot.top + plot.bottom) / 2}" y="12" text-anchor="middle">${escapeText(chart.y.title)}</text>`,
    ...(chart.limits ?? []).map(
      ({ y: value }) => `<path class="limit" d="M${plot.left} ${round(y(value))}H${plot.right}"/>`,
    ),
    ...chart.lines.map(({ colour, dash, points }) => {
      const path = points.map(
        ([px, py], index) => `${index === 0 ? 'M' : 'L'}${round(x(px))} ${round(y(py))}`,
      )
      return `<path class="line" style="stroke:${colour}"${dashOf(dash)} d="${path.join('')}"/>`
    }),
    ...endLabels(chart, y),
    ...tooltipStrips(chart, x),
  ]
  return `<svg class="lines" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeText(chart.title)}">${parts.join('')}</svg>`
}

function scaleOf(
  { ticks, logarithmic = false }: Axis,
  start: number,
  end: number,
): (value: number) => number {
  const position = (value: number) => (logarithmic ? Math.log10(value) : value)
  const [first, last] = [position(ticks[0]), position(ticks.at(-1)!)]
  return (value) => start + ((position(value) - first) / (last - first)) * (end - start)
}

/** Names at the ends of the lines, moved apart where they would overlap. */
function endLabels({ lines, limits = [] }: LineChart, y: (value: number) => number): string[] {
  const labels = [
    ...lines.flatMap(({ name, colour, dash, points }) =>
      points.length === 0 ? [] : [{ name, colour, dash, at: y(points.at(-1)![1]) }],
    ),
    ...limits.map(({ name, y: value }) => ({ name, colour: 'var(--ink)', dash: undefined, at: y(value) })),
  ].sort((one, other) => one.at - other.at)
  const places: number[] = []
  for (const { at } of labels)
    places.push(Math.max(at, plot.top + 4, (places.at(-1) ?? -labelHeight) + labelHeight))
  // What went past the end moves back up.
  let lowest = plot.bottom + labelHeight
  for (let index = places.length - 1; index >= 0; index--) {
    places[index] = Math.min(places[index], lowest - labelHeight)
    lowest = places[index]
  }
  return labels.map(({ name, colour, dash }, index) => {
    const at = round(places[index])
    const [from, to] = [plot.right + 4, plot.right + 26]
    return (
      `<path class="line" style="stroke:${colour}"${dashOf(dash)} d="M${from} ${at}H${to}"/>` +
      `<text class="label" x="${to + 4}" y="${at + 4}" style="fill:${colour}">${escapeText(shortened(name))}</text>`
    )
  })
}

function tooltipStrips({ tooltips }: LineChart, x: (value: number) => number): string[] {
  return tooltips.map(({ x: value, text }, index) => {
    const at = x(value)
    const before = index === 0 ? plot.left : (x(tooltips[index - 1].x) + at) / 2
    const after = index === tooltips.length - 1 ? plot.right : (x(tooltips[index + 1].x) + at) / 2
    return (
      `<rect class="strip" x="${round(before)}" y="${plot.top}" width="${round(Math.max(1, after - before))}" ` +
      `height="${plot.bottom - plot.top}"><title>${escapeText(text)}</title></rect>`
    )
  })
}

function shortened(name: string): string {
  const characters = [...name]
  return characters.length <= labelCharacters ? name : `${characters.slice(0, labelCharacters - 1).join('')}…`
}

function dashOf(dash: string | undefined): string {
  return dash === undefined ? '' : ` stroke-dasharray="${dash}"`
}

function round(pixels: number): number {
  return Math.round(pixels * 10) / 10
}
