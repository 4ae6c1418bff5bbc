/** What is in memory of each buffer: a cell for each chunk, or for several. */
import { element, setText } from './charts.js'
import { bytesText, countText } from './figures.js'

/** Up to so many buffers get rows of their own, with a label; more follow each other in the rows. */
const mostLabelled = 24
const labelWidth = 120
const narrow = 600
const mostHeight = 420

const names = {
  empty: 'empty',
  stored: 'stored: in the backup only',
  clean: 'clean: in memory and stored',
  dirty: 'dirty: in memory only',
  pinned: 'pinned',
  'in flight': 'in flight: moving now',
  mixed: 'mixed',
}

export class HeatMap {
  #canvas = element('canvas', { tabindex: '0', role: 'img' })
  #scroll = element('div', { className: 'map' }, [this.#canvas])
  #readout = element('p', {
    className: 'readout',
    role: 'status',
    text: 'Point at a cell, or use the arrow keys on the map, to see its chunk.',
  })
  #legend = element('ul', { className: 'legend' })
  #counts = []
  #states = []
  #buffers = []
  /** Index of the first cell of each buffer. */
  #starts = []
  #cells = new Uint8Array(0)
  #more = 0
  /** Where cells lie: `{ size, perRow, left, rows }`; of each buffer its first place, in cells, counted row by row. */
  #grid
  #places = []
  #chosen = -1

  constructor(title) {
    this.figure = element('div', {}, [
      element('h3', { text: 'Residency by buffer' }),
      this.#scroll,
      this.#legend,
      this.#readout,
    ])
    this.title = title
    this.#canvas.addEventListener('pointermove', (event) => this.#choose(this.#cellAt(event)))
    this.#canvas.addEventListener('pointerleave', () => this.#choose(-1))
    this.#canvas.addEventListener('keydown', (event) => this.#move(event))
    new ResizeObserver(() => this.#layOut()).observe(this.#scroll)
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#draw())
  }

  /** Other buffers: `[label, sizeBytes, cellBytes, cellCount]` of each. */
  setLayout(states, buffers, more) {
    this.#states = states
    this.#buffers = buffers
    this.#more = more
    this.#chosen = -1
    let start = 0
    this.#starts = buffers.map(([, , , count]) => {
      const first = start
      start += count
      return first
    })
    this.#makeLegend()
    this.#layOut()
  }

  show(cells) {
    this.#cells = cells
    this.#draw()
    const counts = new Array(this.#states.length).fill(0)
    for (const state of cells) counts[state]++
    for (const [index, count] of counts.entries()) setText(this.#counts[index], countText(count))
    const { length } = this.#buffers
    const said = this.#states.map((state, index) => `${countText(counts[index])} ${state}`).join(', ')
    const more = this.#more > 0 ? `, and ${countText(this.#more)} more` : ''
    this.#canvas.setAttribute(
      'aria-label',
      `${this.title}: cells of ${countText(length)} buffers${more}: ${said}`,
    )
    if (this.#chosen >= 0) this.#tell()
  }

  #makeLegend() {
    this.#legend.replaceChildren()
    this.#counts = this.#states.map((state) => {
      const mark = element('i', { className: 'cell' })
      mark.style.setProperty('--mark', `var(--${state.replace(' ', '-')})`)
      const count = element('span')
      this.#legend.append(element('li', {}, [mark, `${names[state] ?? state} `, count]))
      return count
    })
  }

  /** The largest cells with which all buffers can be seen at once, or the smallest. */
  #layOut() {
    const wide = this.#scroll.clientWidth
    if (wide === 0) return
    const isLabelled = this.#buffers.length <= mostLabelled
    const left = isLabelled && wide > narrow ? labelWidth : 0
    for (let size = 14; size >= 3; size--) {
      const perRow = Math.max(1, Math.floor((wide - left) / size))
      const rows = this.#place(perRow, isLabelled, left === 0)
      this.#grid = { size, perRow, left, rows, isLabelled }
      if (rows * size <= mostHeight) break
    }
    const { rows, size } = this.#grid
    const scale = devicePixelRatio
    const tall = Math.max(size, rows * size)
    this.#canvas.width = Math.floor(wide * scale)
    this.#canvas.height = Math.floor(tall * scale)
    this.#canvas.style.height = `${tall}px`
    this.#draw()
  }

  /** Gives each buffer its place; returns how many rows there are. */
  #place(perRow, isLabelled, hasLineForLabel) {
    let at = 0
    this.#places = this.#buffers.map(([, , , count]) => {
      if (isLabelled) at = (Math.ceil(at / perRow) + (hasLineForLabel ? 1 : 0)) * perRow
      const place = at
      at += count + (isLabelled || count === 1 ? 0 : 1)
      return place
    })
    return Math.ceil(at / perRow)
  }

  #draw() {
    if (this.#grid === undefined) return
    const context = this.#canvas.getContext('2d')
    const style = getComputedStyle(document.documentElement)
    const colours = this.#states.map((state) => style.getPropertyValue(`--${state.replace(' ', '-')}`).trim())
    const { size, perRow, left, isLabelled } = this.#grid
    const scale = devicePixelRatio
    context.setTransform(scale, 0, 0, scale, 0, 0)
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height)
    const gap = size > 4 ? 1 : 0
    for (const [index, [label, , , count]] of this.#buffers.entries()) {
      const place = this.#places[index]
      if (isLabelled) this.#drawLabel(context, style, label, place)
      for (let cell = 0; cell < count; ) {
        const state = this.#cells[this.#starts[index] + cell]
        const at = place + cell
        const column = at % perRow
        // Neighbours of one state are one rectangle, unless there is a gap between cells.
        let run = 1
        const most = gap > 0 ? 1 : Math.min(count - cell, perRow - column)
        while (run < most && this.#cells[this.#starts[index] + cell + run] === state) run++
        context.fillStyle = colours[state] ?? 'transparent'
        context.fillRect(left + column * size, Math.floor(at / perRow) * size, run * size - gap, size - gap)
        cell += run
      }
    }
    if (this.#chosen >= 0) this.#drawChoice(context, style)
  }

  #drawLabel(context, style, label, place) {
    const { size, perRow, left } = this.#grid
    context.fillStyle = style.getPropertyValue('--muted')
    context.font = `${Math.min(12, Math.max(9, size))}px system-ui, sans-serif`
    context.textBaseline = 'middle'
    const row = Math.floor(place / perRow)
    const text = left > 0 && label.length > 18 ? `${label.slice(0, 17)}…` : label
    context.fillText(text, 0, (left > 0 ? row + 0.5 : row - 0.5) * size)
  }

  #drawChoice(context, style) {
    const { size, perRow, left } = this.#grid
    const at = this.#placeOf(this.#chosen)
    context.strokeStyle = style.getPropertyValue('--text')
    context.lineWidth = 2
    context.strokeRect(
      left + (at % perRow) * size - 1,
      Math.floor(at / perRow) * size - 1,
      size + 1,
      size + 1,
    )
  }

  #bufferOf(cell) {
    return this.#starts.findLastIndex((start) => start <= cell)
  }

  #placeOf(cell) {
    const buffer = this.#bufferOf(cell)
    return this.#places[buffer] + cell - this.#starts[buffer]
  }

  #cellAt({ offsetX, offsetY }) {
    if (this.#grid === undefined) return -1
    const { size, perRow, left } = this.#grid
    const column = Math.floor((offsetX - left) / size)
    if (column < 0 || column >= perRow) return -1
    const at = Math.floor(offsetY / size) * perRow + column
    const buffer = this.#places.findLastIndex((place) => place <= at)
    const cell = at - this.#places[buffer]
    return buffer >= 0 && cell < this.#buffers[buffer][3] ? this.#starts[buffer] + cell : -1
  }

  #move(event) {
    const { perRow } = this.#grid ?? { perRow: 1 }
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -perRow, ArrowDown: perRow }
    if (event.key === 'Escape') this.#choose(-1)
    const step = steps[event.key]
    if (step === undefined || this.#cells.length === 0) return
    event.preventDefault()
    const next = this.#chosen < 0 ? 0 : this.#chosen + step
    this.#choose(Math.min(this.#cells.length - 1, Math.max(0, next)))
  }

  #choose(cell) {
    if (cell === this.#chosen) return
    this.#chosen = cell
    if (cell >= 0) this.#tell()
    this.#draw()
  }

  #tell() {
    const buffer = this.#bufferOf(this.#chosen)
    const [label, sizeBytes, cellBytes] = this.#buffers[buffer]
    const index = this.#chosen - this.#starts[buffer]
    const first = index * cellBytes
    const end = Math.min(sizeBytes, first + cellBytes)
    const state = this.#states[this.#cells[this.#chosen]] ?? ''
    setText(
      this.#readout,
      `${label}, cell ${countText(index)}: bytes ${bytesText(first)} to ${bytesText(end)} of ${bytesText(sizeBytes)}, ${names[state] ?? state}`,
    )
  }
}
