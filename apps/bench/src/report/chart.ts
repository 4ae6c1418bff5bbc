import { type EChartsOption, init } from 'echarts'

/** Text and lines take the page's colours, so that one drawing serves light and dark. */
export const ink = 'var(--ink)'
export const soft = 'var(--soft)'
export const lineColour = 'var(--line)'
export const gridColour = 'var(--grid)'
export const markColour = 'var(--mark)'

const palette = ['var(--c0)', 'var(--c1)', 'var(--c2)', 'var(--c3)', 'var(--c4)', 'var(--c5)']

export function colourOf(index: number): string {
  return palette[index % palette.length]
}

export const fontFamily = "system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', sans-serif"

/** Draws a chart as SVG text, without any document. */
export function drawChart(option: EChartsOption, widthPixels: number, heightPixels: number): string {
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: widthPixels, height: heightPixels })
  try {
    chart.setOption({
      animation: false,
      backgroundColor: 'transparent',
      textStyle: { fontFamily, color: ink },
      ...option,
    })
    return withoutFixedSize(chart.renderToSVGString(), widthPixels, heightPixels)
  } finally {
    chart.dispose()
  }
}

/** Lets the page scale the drawing. */
function withoutFixedSize(svg: string, widthPixels: number, heightPixels: number): string {
  return svg.replace(/^<svg[^>]*>/, (tag) => {
    const kept = tag.replace(/ (width|height|viewBox)="[^"]*"/g, '')
    return kept.replace('<svg', `<svg viewBox="0 0 ${widthPixels} ${heightPixels}" role="img"`)
  })
}

/** What all value axes look like. */
export function valueAxis(name: string): Record<string, unknown> {
  return {
    type: 'value',
    name,
    nameLocation: 'middle',
    nameTextStyle: { color: soft, fontSize: 13 },
    axisLabel: { color: soft, fontSize: 12 },
    axisLine: { show: true, lineStyle: { color: lineColour } },
    axisTick: { show: false },
    splitLine: { lineStyle: { color: gridColour } },
  }
}

/** What all axes of names look like. */
export function nameAxis(names: readonly string[]): Record<string, unknown> {
  return {
    type: 'category',
    data: [...names],
    axisLabel: { color: ink, fontSize: 13, interval: 0 },
    axisLine: { lineStyle: { color: lineColour } },
    axisTick: { show: false },
  }
}

export function legend(names: readonly string[]): Record<string, unknown> {
  return {
    data: [...names],
    top: 0,
    left: 'center',
    itemWidth: 16,
    itemHeight: 10,
    itemGap: 20,
    textStyle: { color: ink, fontSize: 13 },
  }
}

/** An end of an axis that people read easily, at or above `value`. */
export function niceAbove(value: number): number {
  const step = 10 ** Math.floor(Math.log10(value)) / 2
  return Math.ceil(value / step) * step
}
