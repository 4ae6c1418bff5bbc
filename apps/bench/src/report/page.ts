import { backends } from '../backends.ts'
import { workloads } from '../case/workloads.ts'
import { backendMedian, type GoalOutcome, judgeGoals, specOf, subjectsOf } from '../goals.ts'
import { comparedSubjects, missingPeerNotes, peerFigures } from '../peers/outcome.ts'
import { peers } from '../peers/registry.ts'
import { type CaseResult, isClean, type RunResult } from '../results.ts'
import { shortenedLines } from '../run-budget.ts'
import { formatByteSize, mebibyte } from '../sizes.ts'
import { failureText } from '../table.ts'
import { Colours } from './colours.ts'
import { type Column, dataTable, escapeText, figure } from './html.ts'
import { s3Section } from './s3-section.ts'
import { style } from './style.ts'
import {
  ceilingChart,
  comparisonChart,
  type LabelledRun,
  wholeBufferChart,
  workloadCharts,
} from './throughput-charts.ts'
import { latencyCharts, memoryCharts } from './time-charts.ts'

/** The result of a run as one HTML page that needs nothing else: no script, no network, no font. */
export function renderReport(run: RunResult): string {
  return page(`Spillway benchmark, ${run.date.slice(0, 10)}`, body(run, coloursOf([run])))
}

/** Several runs as one page: side by side first, then each with all that it has. */
export function renderReports(runs: readonly LabelledRun[]): string {
  const colours = coloursOf(runs.map(({ run }) => run))
  const each = runs.map(
    ({ label, run }) =>
      `<details class="run"><summary>${escapeText(label)}: all figures</summary>\n${body(run, colours)}</details>`,
  )
  return page(
    `Spillway benchmark, ${runs.length} runs`,
    `<h1>Spillway benchmark, ${runs.length} runs</h1>\n${comparison(runs, colours)}\n${each.join('\n')}`,
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

function coloursOf(runs: readonly RunResult[]): Colours {
  return new Colours(runs.flatMap(subjectsOf))
}

function body(run: RunResult, colours: Colours): string {
  return [
    header(run),
    goalSection(run),
    wholeBufferSection(run, colours),
    s3Section(run, colours),
    peerSection(run),
    workloadSection(run, colours),
    memorySection(run, colours),
    latencySection(run, colours),
    ceilingSection(run),
    methodSection(run),
  ].join('\n')
}

/** What was measured when and on what, then the figures of all runs on one scale each. */
function comparison(runs: readonly LabelledRun[], colours: Colours): string {
  const columns: Column<LabelledRun>[] = [
    { title: 'run', value: ({ label }) => label },
    { title: 'measured', value: ({ run }) => run.date.replace('T', ' ').slice(0, 16) },
    { title: 'commit', value: ({ run }) => run.commit },
    { title: 'Node', value: ({ run }) => run.nodeVersion },
    { title: 'processor', value: ({ run }) => `${run.machine.processors} × ${run.machine.processor}` },
    { title: 'file system', value: ({ run }) => run.machine.fileSystem },
    {
      title: 'verdict',
      value: ({ run }) =>
        isClean(run) ? 'every byte came back' : 'NOT every byte came back, or a case failed',
      tone: ({ run }) => (isClean(run) ? 'good' : 'bad'),
    },
  ]
  const charts = (['touched', 'backup', 'restore'] as const).map((what) =>
    figure(
      { touched: 'Bytes touched', backup: 'Whole buffers, backup', restore: 'Whole buffers, restore' }[what],
      comparisonChart(runs, what, colours),
      'Runs stand below each other; a colour is a backend. Runs on different machines, or with other limits, say nothing about each other.',
    ),
  )
  return dataTable('runs', columns, runs) + charts.join('')
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
  const columns: Column<GoalOutcome>[] = [
    { title: 'backend', value: ({ subject }) => subject },
    { title: 'what', value: ({ what }) => what },
    { title: 'against', value: ({ against }) => against },
    { title: 'goal', value: ({ goal }) => goal },
    {
      title: 'measured',
      value: ({ measured, met }) => `${measured} ${met ? '✓' : '✗'}`,
      tone: ({ met }) => (met ? 'good' : 'warn'),
    },
  ]
  const outcomes = judgeGoals(run)
  if (outcomes.length === 0) return ''
  return `<h2>Goals</h2>
<p>Ratios of medians to what was measured beside them in the same run. ✓ reached, ✗ not reached.</p>
${dataTable('goals', columns, outcomes)}`
}

function wholeBufferSection(run: RunResult, colours: Colours): string {
  const rate = (name: string, title: string): Column<string> => ({
    title: `${title}, GB/s`,
    value: (backend) =>
      (backendMedian(run, backend, `${name}BytesPerSecond` as 'backupBytesPerSecond') ?? Number.NaN) / 1e9,
    digits: 2,
  })
  const columns = [
    { title: 'backend', value: (backend: string) => backend },
    rate('backup', 'backup'),
    rate('restore', 'restore'),
    rate('backupGivingBack', 'backup, giving memory back'),
    rate('restoreIntoNew', 'restore into new memory'),
  ]
  const measured = subjectsOf(run).filter(
    (backend) => backendMedian(run, backend, 'backupBytesPerSecond') !== undefined,
  )
  return (
    figure(
      'Whole buffers against the physical limit',
      wholeBufferChart(run, colours),
      'Bytes per second of <code>buffer.backup()</code> and <code>buffer.restore()</code> on whole buffers, two at a time, all pages rewritten ' +
        'before each backup so that all of them move, on a pool that keeps the memory. The thick upright line is the ceiling of the same run: memory is held ' +
        'against a C <code>memcpy</code> of the same amount, files against the best of fio (psync, libaio, io_uring; direct, 2 MiB requests, 4 in ' +
        'flight); S3 is held against bare calls instead, below. The thin one reaches from the least to the greatest round. The table has beside them the same on a ' +
        'pool as it comes: there a backup also gives the memory back to the system, and a restore takes new memory from it.',
    ) + dataTable('whole-buffers', columns, measured)
  )
}

function peerSection(run: RunResult): string {
  const subjects = comparedSubjects(run)
  if (subjects.length === 0) return ''
  const columns: Column<string>[] = [
    { title: 'backend or peer', value: (subject) => subject },
    ...peerFigures(run).map(({ title, digits, value }) => ({
      title,
      digits,
      value: (subject: string) => value(run, subject),
    })),
  ]
  const missing = missingPeerNotes(run).map((note) => `<p class="warn">${escapeText(note)}</p>`)
  return `<h2>Beside peers</h2>
<p>The same data under the same limit, each in a process and a memory control group of its own; rounds take turns. Backends that store in memory have no group.</p>
${dataTable('peers', columns, subjects)}${missing.join('\n')}`
}

const milliseconds = (
  title: string,
  value: (each: CaseResult) => number | undefined,
): Column<CaseResult> => ({
  title: `${title}, ms`,
  value,
  digits: 3,
})

const workloadColumns: readonly Column<CaseResult>[] = [
  { title: 'backend', value: ({ backend }) => backend },
  { title: 'workload', value: ({ workload }) => workload },
  {
    title: 'touched, GB/s',
    value: ({ touchedBytesPerSecond }) => (touchedBytesPerSecond ?? Number.NaN) / 1e9,
    digits: 3,
  },
  milliseconds('wait p50', ({ latencies }) => latencies.touch?.p50Ms),
  milliseconds('wait p99', ({ latencies }) => latencies.touch?.p99Ms),
  { title: 'loop p99, ms', value: ({ eventLoopDelayP99Ms }) => eventLoopDelayP99Ms, digits: 1 },
  { title: 'loop max, ms', value: ({ eventLoopDelayMaxMs }) => eventLoopDelayMaxMs, digits: 1 },
  { title: 'CPU, s/GiB', value: ({ cpuSecondsPerTouchedGiB }) => cpuSecondsPerTouchedGiB, digits: 2 },
  {
    title: 'peak memory, MiB',
    value: ({ peakRssBytes, baselineRssBytes }) => (peakRssBytes - baselineRssBytes) / mebibyte,
    digits: 1,
  },
  {
    title: 'wrong bytes',
    value: ({ wrongBytes }) => wrongBytes,
    digits: 0,
    tone: ({ wrongBytes }) => (wrongBytes === 0 ? 'good' : 'bad'),
  },
  {
    title: 'lost pages',
    value: ({ lostPages }) => lostPages,
    digits: 0,
    tone: ({ lostPages }) => (lostPages === 0 ? 'good' : 'bad'),
  },
]

function workloadSection(run: RunResult, colours: Colours): string {
  if (run.cases.length === 0) return ''
  const usedPeers = peers.filter((peer) => run.cases.some((each) => each.backend === `peer:${peer.name}`))
  const words = usedPeers.map(
    (peer) => `<b>peer:${escapeText(peer.name)}</b>: ${escapeText(peer.description)}.`,
  )
  const charts = workloadCharts(run, colours).map(({ workload, chart }) => {
    const description = workloads.find(({ name }) => name === workload)!.description
    return `<figure><h3>${escapeText(workload)}</h3>${chart}<figcaption>${escapeText(description)}</figcaption></figure>`
  })
  return `<h2>Workloads</h2>
<p>Bytes touched per second, hits in memory included, while the data is larger than the limit. The thin line reaches from the least to the greatest round.</p>
${charts.join('\n')}
${words.length === 0 ? '' : `<p>${words.join(' ')}</p>`}
${dataTable('workloads', workloadColumns, run.cases)}`
}

function memorySection(run: RunResult, colours: Colours): string {
  const charts = memoryCharts(run, colours).map(({ backend, chart }) => {
    const shared = Math.max(
      ...run.cases.filter((each) => each.backend === backend).map((each) => each.memory.peakSharedBytes),
    )
    const inProcess =
      backends.find(({ name }) => name === specOf(run, backend).split(/[:+]/)[0])?.storesInProcess ?? false
    const note = inProcess
      ? '<figcaption>The store itself is memory of the process, and is part of the line.</figcaption>'
      : shared > 0
        ? `<figcaption>The store itself, shared memory, took up to ${formatByteSize(shared)} more.</figcaption>`
        : ''
    return `<figure><h3>${escapeText(backend)}</h3>${chart}${note}</figure>`
  })
  if (charts.length === 0) return ''
  return `<h2>Memory over time</h2>
<p>Resident memory of the process (<code>RssAnon + RssFile</code>), sampled from outside every 10 ms, less what the same process held before it
opened backup and pool. It begins with the loading of modules and input list; the shared memory of a backup is its store, and is not part of the line.
The charts have the same scales; solid, dashed and dotted lines are the workloads.</p>
<div class="pair">${charts.join('\n')}</div>`
}

interface PageRestores {
  readonly each: CaseResult
  readonly depth: 4 | 32
}

const pageRestoreColumns: readonly Column<PageRestores>[] = [
  { title: 'backend', value: ({ each }) => each.backend },
  { title: 'case', value: ({ each }) => each.workload },
  { title: 'in flight', value: ({ depth }) => depth, digits: 0 },
  {
    title: 'restores, thousand/s',
    value: ({ each, depth }) => (each[`pageRestoresPerSecondDepth${depth}`] ?? Number.NaN) / 1000,
    digits: 1,
  },
  ...(
    [
      ['p50', 'p50Ms'],
      ['p99', 'p99Ms'],
      ['p99.9', 'p999Ms'],
      ['max', 'maxMs'],
    ] as const
  ).map(
    ([title, name]): Column<PageRestores> => ({
      title: `${title}, ms`,
      value: ({ each, depth }) => each.latencies[`pageRestoreDepth${depth}`]?.[name],
      digits: 3,
    }),
  ),
]

function latencySection(run: RunResult, colours: Colours): string {
  const charts = latencyCharts(run, colours).map(
    ({ workload, chart }) => `<figure><h3>${escapeText(workload)}</h3>${chart}</figure>`,
  )
  const restores = run.cases.flatMap((each) =>
    ([4, 32] as const)
      .filter((depth) => each[`pageRestoresPerSecondDepth${depth}`] !== null)
      .map((depth) => ({ each, depth })),
  )
  const pages =
    restores.length === 0
      ? ''
      : `<p>Single pages, restored one by one in random order (a pin of one page each):</p>${dataTable('single-pages', pageRestoreColumns, restores)}`
  if (charts.length === 0) return pages
  return `<h2>Restore latency</h2>
<p>From asking for a pin to having its memory, over all touches of the measured rounds, those that found it resident included: the left side is hits, the right
side restores that had to evict first. Closed loop: the next touch waits for the one before. The charts have the same scales.</p>
<div class="pair">${charts.join('\n')}</div>
${pages}`
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
