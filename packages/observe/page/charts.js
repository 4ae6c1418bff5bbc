/** Small charts: a line for each series over time, and bars for a histogram. */

const svgSpace = 'http://www.w3.org/2000/svg'
const width = 300
const height = 100

export function element(name, { text, className, ...attributes } = {}, children = []) {
  const made = document.createElement(name)
  if (text !== undefined) made.textContent = text
  if (className !== undefined) made.className = className
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children)
  return made
}

function svgElement(name, attributes = {}) {
  const made = document.createElementNS(svgSpace, name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  return made
}

/** Writes a text only where it changed: what is read aloud, and what is laid out, stays still otherwise. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text
}

function frameOf(title) {
  const svg = svgElement('svg', {
    viewBox: `0 0 ${width} ${height}`,
    preserveAspectRatio: 'none',
    role: 'img',
  })
  const most = element('span')
  const legend = element('ul', { className: 'legend' })
  const left = element('span')
  const right = element('span')
  const figure = element('div', { className: 'chart' }, [
    element('h3', { text: title }),
    element('div', { className: 'axis' }, [most]),
    svg,
    element('div', { className: 'axis' }, [left, right]),
    legend,
  ])
  return { figure, svg, most, left, right, legend }
}

/** The least number from `value` on of which the scale is easy to read. */
function roundedUp(value) {
  if (value <= 0) return 1
  const power = 2 ** Math.floor(Math.log2(value))
  return value <= power ? power : value <= power * 1.5 ? power * 1.5 : power * 2
}

/**
 * Lines over time. `series`: `{ title, colour, isDashed }`; `format` writes a value; `most` fixes the top of the scale.
 * `show(times, rows)`: a row for each series.
 */
export class LineChart {
  #series
  #format
  #title
  #fixed
  #parts
  #paths
  #values
  #pointer
  #shown = { times: [], rows: [] }

  constructor(title, series, { format, most } = {}) {
    this.#series = series
    this.#format = format
    this.#title = title
    this.#fixed = most
    this.#parts = frameOf(title)
    const { svg, legend } = this.#parts
    for (const y of [25, 50, 75]) svg.append(svgElement('line', { x1: 0, x2: width, y1: y, y2: y }))
    this.#pointer = svgElement('line', { y1: 0, y2: height, visibility: 'hidden' })
    this.#pointer.style.stroke = 'currentcolor'
    this.#paths = series.map(({ colour, isDashed }) => {
      const path = svgElement('path', isDashed ? { class: 'dashed' } : {})
      path.style.color = `var(--${colour})`
      svg.append(path)
      return path
    })
    svg.append(this.#pointer)
    this.#values = series.map(({ title: name, colour, isDashed }) => {
      const mark = element('i', { className: isDashed ? 'dashed' : '' })
      mark.style.setProperty('--mark', `var(--${colour})`)
      const value = element('span')
      legend.append(element('li', {}, [mark, `${name} `, value]))
      return value
    })
    svg.addEventListener('pointermove', (event) => this.#point(event))
    svg.addEventListener('pointerleave', () => this.#point(undefined))
  }

  get figure() {
    return this.#parts.figure
  }

  show(times, rows) {
    this.#shown = { times, rows }
    const most = this.#fixed ?? roundedUp(Math.max(...rows.flat().filter((value) => !Number.isNaN(value)), 0))
    const first = times[0]
    const span = Math.max(1, times.at(-1) - first)
    for (const [index, row] of rows.entries()) {
      let path = ''
      let isDrawing = false
      for (const [at, value] of row.entries()) {
        if (Number.isNaN(value)) {
          isDrawing = false
          continue
        }
        const x = ((times[at] - first) / span) * width
        const y = height - Math.min(1, value / most) * (height - 2) - 1
        path += `${isDrawing ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`
        isDrawing = true
      }
      this.#paths[index].setAttribute('d', path)
    }
    const { most: top, left, right } = this.#parts
    setText(top, this.#format(most))
    setText(left, `${Math.round(span / 1000)} s ago`)
    setText(right, 'now')
    this.#tell(times.length - 1)
  }

  #tell(at) {
    const texts = this.#shown.rows.map((row) => this.#format(row[at]))
    for (const [index, text] of texts.entries()) setText(this.#values[index], text)
    const said = this.#series.map(({ title }, index) => `${title} ${texts[index]}`).join(', ')
    this.#parts.svg.setAttribute('aria-label', `${this.#title}: ${said}`)
  }

  #point(event) {
    const { times } = this.#shown
    if (event === undefined || times.length < 2) {
      this.#pointer.setAttribute('visibility', 'hidden')
      if (times.length > 0) this.#tell(times.length - 1)
      return
    }
    const { left, width: wide } = this.#parts.svg.getBoundingClientRect()
    const part = Math.min(1, Math.max(0, (event.clientX - left) / wide))
    const wanted = times[0] + part * (times.at(-1) - times[0])
    const at = times.findLastIndex((time) => time <= wanted)
    for (const end of ['x1', 'x2']) this.#pointer.setAttribute(end, part * width)
    this.#pointer.setAttribute('visibility', 'visible')
    this.#tell(Math.max(0, at))
  }
}

/** Bars for the counts of buckets. `show(counts, said)`: what the figure says in words. */
export class Histogram {
  #title
  #parts
  #bars
  #said

  constructor(title, bucketTitles) {
    this.#title = title
    this.#parts = frameOf(title)
    const { svg, left, right, legend } = this.#parts
    const step = width / bucketTitles.length
    this.#bars = bucketTitles.map((name, index) => {
      const bar = svgElement('rect', { x: index * step + 1, width: step - 2 })
      const tooltip = svgElement('title')
      bar.append(tooltip)
      svg.append(bar)
      return { bar, tooltip, name }
    })
    setText(left, bucketTitles[0])
    setText(right, bucketTitles.at(-1))
    this.#said = element('li')
    legend.append(this.#said)
  }

  get figure() {
    return this.#parts.figure
  }

  show(counts, said) {
    const most = Math.max(1, ...counts)
    for (const [index, count] of counts.entries()) {
      const { bar, tooltip, name } = this.#bars[index]
      const tall = count === 0 ? 0 : Math.max(2, (count / most) * (height - 4))
      bar.setAttribute('y', height - tall)
      bar.setAttribute('height', tall)
      setText(tooltip, `${name}: ${count} calls`)
    }
    setText(this.#parts.most, `${most} calls`)
    setText(this.#said, said)
    this.#parts.svg.setAttribute('aria-label', `${this.#title}: ${said}`)
  }
}
