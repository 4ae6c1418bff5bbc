/** One pool: its verdict, figures, charts and heat map. */
import { element, Histogram, LineChart, setText } from './charts.js'
import {
  boundText,
  bytesText,
  countText,
  quantileOf,
  ratesOf,
  rateText,
  shareText,
  verdictOf,
} from './figures.js'
import { HeatMap } from './heat-map.js'

/** Looks that are kept: a minute of them. */
const mostLooks = 240
/** Looks that a verdict and rates are made of: two seconds. */
const rateLooks = 8

const tiles = [
  ['In memory', (stats) => bytesText(stats.residentBytes)],
  ['Limit', (stats) => bytesText(stats.limitBytes)],
  ['Hit rate', (_, rates) => shareText(rates.hitRate)],
  ['Restored', (_, rates) => rateText(rates.restored)],
  ['Evicted', (_, rates) => rateText(rates.evicted)],
  ['In the backup only', (stats) => bytesText(stats.backedUpBytes)],
  ['Pins', (stats) => `${countText(stats.pins)}, ${bytesText(stats.pinnedBytes)}`],
  ['Waiting', (stats) => countText(stats.waiters)],
  ['Buffers', (stats) => countText(stats.buffers)],
]

export class PoolView {
  #looks = []
  #title = element('h2')
  #verdict = element('p', { className: 'verdict', role: 'status' })
  #values = tiles.map(() => element('dd'))
  #memory = new LineChart(
    'Memory',
    [
      { title: 'limit', colour: 'limit', isDashed: true },
      { title: 'resident', colour: 'resident' },
      { title: 'dirty', colour: 'dirty' },
      { title: 'idle', colour: 'idle', isDashed: true },
    ],
    { format: bytesText },
  )
  #moves = new LineChart(
    'Moved each second',
    [
      { title: 'restored', colour: 'resident' },
      { title: 'evicted', colour: 'idle', isDashed: true },
      { title: 'restored again', colour: 'refaulted' },
    ],
    { format: rateText },
  )
  #hits = new LineChart('Hit rate', [{ title: 'accesses that found memory', colour: 'clean' }], {
    format: shareText,
    most: 1,
  })
  #histograms
  #map

  constructor({ name }, boundsSeconds) {
    const buckets = [...boundsSeconds, Number.POSITIVE_INFINITY].map(boundText)
    this.#histograms = new Map([
      ['pool.page_in', new Histogram('Page-in time', buckets)],
      ['pool.page_out', new Histogram('Page-out time', buckets)],
    ])
    this.#map = new HeatMap(`Pool ${name}`)
    setText(this.#title, name)
    const list = element(
      'dl',
      { className: 'tiles' },
      tiles.map(([title], index) =>
        element('div', {}, [element('dt', { text: title }), this.#values[index]]),
      ),
    )
    const charts = [this.#memory, this.#moves, this.#hits, ...this.#histograms.values()]
    this.section = element('section', { 'aria-label': `Pool ${name}` }, [
      this.#title,
      this.#verdict,
      list,
      element(
        'div',
        { className: 'charts' },
        charts.map(({ figure }) => figure),
      ),
      this.#map.figure,
    ])
  }

  setLayout(states, buffers, all) {
    this.#map.setLayout(states, buffers, all - buffers.length)
  }

  show({ stats, pageSizeBytes, title }, { atMs, durations, boundsSeconds }, cells) {
    const calls = new Map(durations.filter(({ name }) => name === title).map((call) => [call.kind, call]))
    this.#looks.push({ atMs, stats, pageSizeBytes, calls })
    if (this.#looks.length > mostLooks) this.#looks.shift()
    const rates = this.#ratesAt(this.#looks.length - 1)
    this.#showVerdict(verdictOf(stats, rates))
    for (const [index, [, text]] of tiles.entries()) setText(this.#values[index], text(stats, rates))
    this.#showLines()
    for (const [kind, histogram] of this.#histograms) this.#showCalls(histogram, kind, boundsSeconds)
    this.#map.show(cells)
  }

  #ratesAt(index) {
    return ratesOf(this.#looks[index], this.#looks[Math.max(0, index - rateLooks)])
  }

  #showVerdict({ level, word, why }) {
    // Read aloud when the word changes, and not with each figure.
    if (this.#verdict.dataset.word === word) {
      this.#verdict.setAttribute('aria-live', 'off')
      setText(this.#verdict.lastChild, why)
      return
    }
    this.#verdict.dataset.word = word
    this.#verdict.setAttribute('aria-live', 'polite')
    this.#verdict.className = `verdict ${level}`
    this.#verdict.replaceChildren(element('strong', { text: word }), element('span', { text: why }))
  }

  #showLines() {
    const looks = this.#looks
    const times = looks.map(({ atMs }) => atMs)
    const memory = ['limitBytes', 'residentBytes', 'dirtyBytes', 'idleBytes']
    this.#memory.show(
      times,
      memory.map((name) => looks.map(({ stats }) => stats[name])),
    )
    const rates = looks.map((_, index) => this.#ratesAt(index))
    this.#moves.show(
      times,
      ['restored', 'evicted', 'refaulted'].map((name) => rates.map((rate) => rate[name])),
    )
    this.#hits.show(times, [rates.map(({ hitRate }) => hitRate)])
  }

  /** The calls of the last minute. */
  #showCalls(histogram, kind, boundsSeconds) {
    const now = this.#looks.at(-1).calls.get(kind)
    const before = this.#looks[0].calls.get(kind)
    const zeros = new Array(boundsSeconds.length + 1).fill(0)
    // Counting begins anew when nobody looked for a while.
    const isNewer = before !== undefined && now !== undefined && now.count >= before.count
    const counts = (now?.counts ?? zeros).map((count, index) => count - (isNewer ? before.counts[index] : 0))
    const total = counts.reduce((sum, count) => sum + count, 0)
    const half = boundText(quantileOf(counts, boundsSeconds, 0.5))
    const most = boundText(quantileOf(counts, boundsSeconds, 0.99))
    histogram.show(
      counts,
      total === 0
        ? 'no calls in the last minute'
        : `${countText(total)} calls in the last minute, half of them ${half}, 99 % ${most}`,
    )
  }
}
