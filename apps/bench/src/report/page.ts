import { backends } from '../backends.ts'
import { workloads } from '../case/workloads.ts'
import { backendMedian, judgeGoals, specOf, subjectsOf } from '../goals.ts'
import { peers } from '../peers/registry.ts'
import { isClean, type RunResult } from '../results.ts'
import { shortenedLines } from '../run-budget.ts'
import { formatByteSize, formatMilliseconds, formatRate } from '../sizes.ts'
import { failureText } from '../table.ts'
import { escapeText, figure, table } from './html.ts'
import { s3Section } from './s3-section.ts'
import { style } from './style.ts'
import { ceilingChart, comparisonChart, wholeBufferChart, workloadChart } from './throughput-charts.ts'
import { latencyChart, memoryChart } from './time-charts.ts'

/** A run, and what the page calls it. */
export interface LabelledRun {
  readonly label: string
  readonly run: RunResult
}

/** The result of a run as one HTML page that needs nothing else: no script, no network, no font. */
export function renderReport(run: RunResult): string {
  return page(`Spillway benchmark, ${run.date.slice(0, 10)}`, body(run))
}

/** Several runs as one page: side by side first, then each with all that it has. */
export function renderReports(runs: readonly LabelledRun[]): string {
  const each = runs.map(
    ({ label, run }) =>
      `<details class="run"><summary>${escapeText(label)}: all figures</summary>\n${body(run)}</details>`,
  )
  return page(
    `Spillway benchmark, ${runs.length} runs`,
    `<h1>Spillway benchmark, ${runs.length} runs</h1>\n${comparison(runs)}\n${each.join('\n')}`,
  )
}

function page(title: string, content: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeText(title)}</title>
<style>${style}</style>
</head>
<body><main>
${content}
</main></body>
</html>
`
}

function body(run: RunResult): string {
  return [
    header(run),
    goalSection(run),
    wholeBufferSection(run),
    s3Section(run),
    workloadSection(run),
    memorySection(run),
    latencySection(run),
    ceilingSection(run),
    methodSection(run),
  ].join('\n')
}

/** What was measured when and on what, then the figures of all runs on one scale each. */
function comparison(runs: readonly LabelledRun[]): string {
  const rows = runs.map(({ label, run }) => {
    const { machine } = run
    const cells = [
      label,
      run.date.replace('T', ' ').slice(0, 16),
      run.commit,
      run.nodeVersion,
      `${machine.processors} × ${machine.processor}`,
      machine.fileSystem,
    ].map((cell) => `<td>${escapeText(cell)}</td>`)
    const clean = isClean(run)
    const verdict = clean ? 'every byte came back' : 'NOT every byte came back, or a case failed'
    return `<tr>${cells.join('')}<td class="${clean ? 'good' : 'bad'}">${verdict}</td></tr>`
  })
  const charts = (['touched', 'backup', 'restore'] as const).map((what) =>
    figure(
      { touched: 'Bytes touched', backup: 'Whole buffers, backup', restore: 'Whole buffers, restore' }[what],
      comparisonChart(runs, what),
      'Each run has one colour. Runs on different machines, or with other limits, say nothing about each other.',
    ),
  )
  return (
    table(['run', 'measured', 'commit', 'Node', 'processor', 'file system', 'verdict'], rows) +
    charts.join('')
  )
}

function header(run: RunResult): string {
  const verified = run.cases.reduce((sum, each) => sum + each.verifiedBytes, 0)
  const wrong = run.cases.reduce((sum, each) => sum + each.wrongBytes, 0)
  const lost = run.cases.reduce((sum, each) => sum + each.lostPages, 0)
  const clean = isClean(run)
  const verdict = clean
    ? `Every byte came back: ${formatByteSize(verified)} verified by SHA-256, 0 wrong bytes, 0 lost pages`
    : `NOT every byte came back: ${wrong} wrong bytes, ${lost} lost pages, ${run.failedCases.length} cases failed`
  const { machine, settings } = run
  const first = run.cases[0]
  const facts: [string, string][] = [
    ['measured', `${run.date.replace('T', ' ').slice(0, 16)} UTC, ${run.seconds.toFixed(0)} s`],
    ['commit', run.commit],
    ['Node', run.nodeVersion],
    [
      'machine',
      `${machine.processors} × ${machine.processor}, ${formatByteSize(machine.memoryBytes)} memory, ${machine.system}`,
    ],
    ['directory', `${machine.directory} (${machine.fileSystem})`],
    ...(first === undefined
      ? []
      : ([
          [
            'data',
            `${formatByteSize(first.dataBytes)} from ${settings.inputFiles} real files (${formatByteSize(settings.inputBytes)}), ` +
              `limit ${formatByteSize(first.limitBytes)}, pages of ${formatByteSize(first.pageSizeBytes)}, buffers of ${formatByteSize(first.bufferBytes)}`,
          ],
          [
            'rounds',
            `${settings.rounds} measured after one to warm up, ${first.concurrency} touches in flight, seed ${settings.seed}`,
          ],
        ] as [string, string][])),
  ]
  return `<h1>Spillway benchmark</h1>
<p>Real files, more of them than the pool's limit allows, on every backend, held against what this machine can do at most.</p>
<div class="verdict ${clean ? 'good' : 'bad'}">${escapeText(verdict)}</div>
<dl>${facts.map(([name, value]) => `<dt>${escapeText(name)}</dt><dd>${escapeText(value)}</dd>`).join('\n')}</dl>
${run.failedCases.map((each) => `<p class="bad">${escapeText(failureText(each))}</p>`).join('\n')}`
}

function goalSection(run: RunResult): string {
  const outcomes = judgeGoals(run)
  if (outcomes.length === 0) return ''
  const rows = outcomes.map(
    (each) =>
      `<tr><td>${escapeText(each.subject)}</td><td class="wide">${escapeText(each.what)}</td><td>${escapeText(each.against)}</td>` +
      `<td class="number">${escapeText(each.goal)}</td><td class="number ${each.met ? 'good' : 'warn'}">${escapeText(each.measured)} ${each.met ? '✓' : '✗'}</td></tr>`,
  )
  return `<h2>Goals</h2>
<p>Ratios of medians to what was measured beside them in the same run. ✓ reached, ✗ not reached.</p>
${table(['backend', 'what', 'against', '>goal', '>measured'], rows)}`
}

function wholeBufferSection(run: RunResult): string {
  const rows = subjectsOf(run).flatMap((backend) => {
    const figures = (['backup', 'restore', 'backupGivingBack', 'restoreIntoNew'] as const).map((name) =>
      backendMedian(run, backend, `${name}BytesPerSecond`),
    )
    if (figures[0] === undefined) return []
    const cells = figures.map((figure) => `<td class="number">${formatRate(figure ?? Number.NaN)}</td>`)
    return [`<tr><td>${escapeText(backend)}</td>${cells.join('')}</tr>`]
  })
  return (
    figure(
      'Whole buffers against the physical limit',
      wholeBufferChart(run),
      'Bytes per second of <code>buffer.backup()</code> and <code>buffer.restore()</code> on whole buffers, two at a time, all pages rewritten ' +
        'before each backup so that all of them move, on a pool that keeps the memory. The red mark is the ceiling of the same run: memory is held ' +
        'against a C <code>memcpy</code> of the same amount, files against the best of fio (psync, libaio, io_uring; direct, 2 MiB requests, 4 in ' +
        'flight); S3 is held against bare calls instead, below. The table has beside them the same on a pool as it comes: there a backup also gives the memory back to the system, and a restore ' +
        'takes new memory from it.',
    ) +
    (rows.length === 0
      ? ''
      : table(
          ['backend', '>backup', '>restore', '>backup, giving memory back', '>restore into new memory'],
          rows,
        ))
  )
}

function workloadSection(run: RunResult): string {
  const used = workloads.filter((workload) => run.cases.some((each) => each.workload === workload.name))
  const usedPeers = peers.filter((peer) => run.cases.some((each) => each.backend === `peer:${peer.name}`))
  const words = [
    ...used.map((workload) => `<b>${escapeText(workload.name)}</b>: ${escapeText(workload.description)}.`),
    ...usedPeers.map((peer) => `<b>peer:${escapeText(peer.name)}</b>: ${escapeText(peer.description)}.`),
  ]
  const rows = run.cases.map((each) => {
    const wait = each.latencies.touch
    const wrong = each.wrongBytes + each.lostPages === 0 ? 'good' : 'bad'
    return `<tr><td>${escapeText(each.backend)}</td><td>${escapeText(each.workload)}</td>${[
      each.touchedBytesPerSecond === null ? '–' : formatRate(each.touchedBytesPerSecond),
      wait === undefined ? '–' : formatMilliseconds(wait.p50Ms),
      wait === undefined ? '–' : formatMilliseconds(wait.p99Ms),
      `${formatMilliseconds(each.eventLoopDelayP99Ms)} / ${formatMilliseconds(each.eventLoopDelayMaxMs)}`,
      each.cpuSecondsPerTouchedGiB.toFixed(2),
      formatByteSize(each.peakRssBytes - each.baselineRssBytes),
      `<span class="${wrong}">${each.wrongBytes} / ${each.lostPages}</span>`,
    ]
      .map((cell) => `<td class="number">${cell}</td>`)
      .join('')}</tr>`
  })
  return (
    figure(
      'Workloads',
      workloadChart(run),
      `Bytes touched per second, hits in memory included, while the data is larger than the limit. ${words.join(' ')}`,
    ) +
    table(
      [
        'backend',
        'workload',
        '>touched',
        '>wait p50',
        '>wait p99',
        '>loop p99 / max',
        '>CPU s/GiB',
        '>peak memory',
        '>wrong / lost',
      ],
      rows,
    )
  )
}

function memorySection(run: RunResult): string {
  const charts = subjectsOf(run).flatMap((backend) => {
    const chart = memoryChart(run, backend)
    if (chart === undefined) return []
    const shared = Math.max(
      ...run.cases.filter((each) => each.backend === backend).map((each) => each.memory.peakSharedBytes),
    )
    const inProcess =
      backends.find(({ name }) => name === specOf(run, backend).split(/[:+]/)[0])?.storesInProcess ?? false
    const note = inProcess
      ? '; the store itself is memory of the process, and is part of the line'
      : shared > 0
        ? `; the store itself, shared memory, took up to ${formatByteSize(shared)} more`
        : ''
    return [
      `<figure>${chart}<figcaption><b>${escapeText(backend)}</b>${escapeText(note)}</figcaption></figure>`,
    ]
  })
  if (charts.length === 0) return ''
  return `<h2>Memory over time</h2>
<p>Resident memory of the process (<code>RssAnon + RssFile</code>), sampled from outside every 10 ms, less what the same process held before it
opened backup and pool. It begins with the loading of modules and input list; the shared memory of a backup is its store, and is not part of the line.</p>
<div class="pair">${charts.join('\n')}</div>`
}

function latencySection(run: RunResult): string {
  const rows = run.cases.flatMap((each) =>
    ([4, 32] as const).flatMap((depth) => {
      const summary = depth === 4 ? each.latencies.pageRestoreDepth4 : each.latencies.pageRestoreDepth32
      const rate = depth === 4 ? each.pageRestoresPerSecondDepth4 : each.pageRestoresPerSecondDepth32
      if (summary === undefined || rate === null) return []
      const cells = [
        `${(rate / 1000).toFixed(1)} k/s`,
        ...[summary.p50Ms, summary.p99Ms, summary.p999Ms, summary.maxMs].map(formatMilliseconds),
      ]
      return [
        `<tr><td>${escapeText(each.backend)}</td><td>${escapeText(each.workload)}</td><td class="number">${depth}</td>${cells.map((cell) => `<td class="number">${cell}</td>`).join('')}</tr>`,
      ]
    }),
  )
  return (
    figure(
      'Restore latency',
      latencyChart(run),
      'From asking for a pin to having its memory, over all touches of the measured rounds, those that found it resident included: ' +
        'the left side is hits, the right side restores that had to evict first. Closed loop: the next touch waits for the one before.',
    ) +
    (rows.length === 0
      ? ''
      : `<p>Single pages, restored one by one in random order (a pin of one page each):</p>${table(
          ['backend', 'case', '>in flight', '>restores', '>p50', '>p99', '>p99.9', '>max'],
          rows,
        )}`)
  )
}

function ceilingSection(run: RunResult): string {
  const random = ([4, 32] as const).flatMap((depth) => {
    const rate = run.ceilings[`fioRandom4KiBDepth${depth}`]
    return rate === undefined ? [] : [`${(rate / 1000).toFixed(1)} thousand a second at depth ${depth}`]
  })
  const randomText =
    random.length === 0 ? '' : ` fio reads random 4 KiB pages with io_uring ${random.join(' and ')}.`
  const notes = run.ceilingNotes.map((note) => `<p>${escapeText(note)}</p>`).join('\n')
  return (
    figure(
      'Ceilings of this machine',
      ceilingChart(run),
      `Measured in the same run, each the median of ${run.settings.rounds} rounds.${randomText}`,
    ) + notes
  )
}

function methodSection(run: RunResult): string {
  const lines = shortenedLines(run.cases, run.settings.budgetSeconds)
  const shortened = lines.map((line) => `\n<p class="warn">${escapeText(line)}</p>`).join('')
  return `<h2>How this was measured</h2>
<p>Every case runs in a fresh process: whole buffers, single pages, then loading of all files, one round to warm up, ${run.settings.rounds} measured rounds, and
reading everything back. Figures are medians; whiskers reach from the least to the greatest round. Each touch checks a word in every 512 bytes; at the end the
SHA-256 of every file is compared with that of what was written. A case that returns a wrong byte is not measured. Event-loop delay is the time
between two ticks of a 1 ms timer, that millisecond included, while something is measured.</p>${shortened}`
}
