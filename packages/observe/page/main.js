/** Asks for a look four times a second, while the page is seen, and shows it. */
import { element, setText } from './charts.js'
import { boundText, bytesText, countText, quantileOf } from './figures.js'
import { PoolView } from './pool-view.js'

const periodMs = 250
const find = (id) => document.getElementById(id)
const views = new Map()
let layout = 0
let isPaused = false

/** Four bytes with the length of the text, the text, and a byte for each cell. */
function parse(bytes) {
  const length = new DataView(bytes).getUint32(0, true)
  const frame = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)))
  return { frame, cells: new Uint8Array(bytes, 4 + length) }
}

async function look() {
  const response = await fetch(`frame?layout=${layout}`)
  if (!response.ok) throw new Error(`the process answers with ${response.status}`)
  const { frame, cells } = parse(await response.arrayBuffer())
  show(frame, cells)
}

let lengths = []

function show(frame, cells) {
  setText(find('process'), `process ${frame.pid}, Node ${frame.node}`)
  showPools(frame)
  if (frame.layout.pools !== undefined) {
    lengths = frame.layout.pools.map((buffers) => buffers.reduce((sum, buffer) => sum + buffer[3], 0))
    for (const [index, buffers] of frame.layout.pools.entries()) {
      const { name, stats } = frame.pools[index]
      views.get(name).setLayout(frame.mapStates, buffers, stats.buffers)
    }
    layout = frame.layout.version
  }
  let start = 0
  for (const [index, pool] of frame.pools.entries()) {
    const end = start + lengths[index]
    views.get(pool.name).show(pool, frame, cells.subarray(start, end))
    start = end
  }
  showBudgets(frame.budgets)
  showBackups(frame)
}

function showPools({ pools, boundsSeconds }) {
  const names = new Set(pools.map(({ name }) => name))
  for (const [name, view] of views) {
    if (names.has(name)) continue
    view.section.remove()
    views.delete(name)
  }
  for (const pool of pools) {
    if (views.has(pool.name)) continue
    const view = new PoolView(pool, boundsSeconds)
    views.set(pool.name, view)
    find('pools').append(view.section)
  }
  const none = find('none')
  if (pools.length > 0) none?.remove()
  else if (none === null) find('pools').append(element('section', { id: 'none', text: 'No pool is open.' }))
}

function showBudgets(budgets) {
  find('budgets').hidden = budgets.length === 0
  const rows = budgets.flatMap(({ name, limitBytes, residentBytes, waiters, pools }) => [
    [name, bytesText(limitBytes), bytesText(residentBytes), '', countText(waiters)],
    ...pools.map((pool) => [
      `– ${pool.name}`,
      '',
      bytesText(pool.chargedBytes),
      bytesText(pool.shareBytes),
      '',
    ]),
  ])
  fill(find('budgets'), ['Budget', 'Limit', 'Used', 'Share', 'Waiting'], rows)
}

function showBackups({ backups, durations, boundsSeconds }) {
  find('backups').hidden = backups.length === 0
  const titles = [
    'Backup',
    'Stored',
    'Medium',
    'In',
    'Out',
    'Store 99 %',
    'Read 99 %',
    'Errors',
    'Requests',
    'Cost',
  ]
  const rows = backups.map((backup) => {
    const { name, title, pageSizeBytes, livePages, mediumBytes, backedUpPages, copiedPages, costs } = backup
    const callsOf = (kind) => durations.find((call) => call.kind === kind && call.name === title)
    const [storing, reading] = [callsOf('backup.backup_pages'), callsOf('backup.copy_pages')]
    const slowest = (calls) =>
      calls === undefined ? '–' : boundText(quantileOf(calls.counts, boundsSeconds, 0.99))
    const errors = (storing?.errors ?? 0) + (reading?.errors ?? 0) + backup.writebackErrors
    return [
      name,
      bytesText(livePages * pageSizeBytes),
      bytesText(mediumBytes),
      bytesText(backedUpPages * pageSizeBytes),
      bytesText(copiedPages * pageSizeBytes),
      slowest(storing),
      slowest(reading),
      backup.problem === undefined ? countText(errors) : `${countText(errors)}: ${backup.problem}`,
      costs === undefined ? '–' : countText(costs.requests),
      costs === undefined ? '–' : `$${costs.dollars.toFixed(4)}`,
    ]
  })
  fill(find('backups'), titles, rows)
}

/** Fills a table, in place where it has as many cells. */
function fill(section, titles, rows) {
  const table = section.querySelector('table')
  if (table.querySelectorAll('tbody tr').length !== rows.length) {
    const head = titles.map((title) => element('th', { text: title, scope: 'col' }))
    const body = rows.map((row) =>
      element(
        'tr',
        {},
        row.map((_, index) => (index === 0 ? element('th', { scope: 'row' }) : element('td'))),
      ),
    )
    table.replaceChildren(element('thead', {}, [element('tr', {}, head)]), element('tbody', {}, body))
  }
  const lines = table.querySelectorAll('tbody tr')
  for (const [index, row] of rows.entries())
    for (const [column, text] of row.entries()) setText(lines[index].children[column], text)
}

async function run() {
  const connection = find('connection')
  for (;;) {
    if (!isPaused && !document.hidden) {
      try {
        await look()
        connection.hidden = true
      } catch (failure) {
        setText(
          connection,
          `Not connected: the process has ended, or closed its dashboard (${failure.message}).`,
        )
        connection.hidden = false
        await new Promise((resolve) => setTimeout(resolve, 1000))
      }
    }
    await new Promise((resolve) => setTimeout(resolve, periodMs))
  }
}

find('pause').addEventListener('click', ({ currentTarget }) => {
  isPaused = !isPaused
  currentTarget.setAttribute('aria-pressed', String(isPaused))
})
run()
