import { styleText } from 'node:util'
import { isFailedCase } from './case/start-case.ts'
import { backendMedian, ceilingOf, ceilingTitle, judgeGoals, subjectsOf } from './goals.ts'
import { comparedSubjects, missingPeerNotes, peerFigures } from './peers/outcome.ts'
import { type CaseResult, type FailedCase, isClean, isCleanCase, type RunResult } from './results.ts'
import { shortenedLines } from './run-budget.ts'
import { loopHead, loopRows, matrixHead, matrixRows, s3Notes } from './s3/outcome.ts'
import { formatByteSize, formatMilliseconds, formatRate, mebibyte } from './sizes.ts'
import { wrapForTerminal } from './terminal.ts'
import { textTable } from './text-table.ts'

const keptTitles: Readonly<Record<string, string>> = {
  backupBytesPerSecond: 'backup',
  restoreBytesPerSecond: 'restore',
  pageRestoresPerSecondDepth4: 'pages 4 deep',
  pageRestoresPerSecondDepth32: 'pages 32 deep',
}

/** What failed, where and why, and what was measured before. */
export function failureText({ backend, workload, message, phase, measured = {} }: FailedCase): string {
  const kept = Object.entries(measured).flatMap(([name, value]) => {
    const title = keptTitles[name]
    if (title === undefined) return []
    return [`${title} ${name.startsWith('page') ? `${(value / 1000).toFixed(1)} k/s` : formatRate(value)}`]
  })
  const place = phase === undefined ? '' : ` in the phase '${phase}'`
  const before = kept.length === 0 ? '' : ` (measured before: ${kept.join(', ')})`
  return `${backend} · ${workload} failed${place}: ${message}${before}`
}

/** One line for a case that just ended. */
export function caseLine(outcome: CaseResult | FailedCase): string {
  const name = `${outcome.backend} · ${outcome.workload}`
  if (isFailedCase(outcome)) return wrapForTerminal(`${bad('✗')} ${failureText(outcome)}`)
  const figures = [
    outcome.touchedBytesPerSecond === null
      ? 'not measured'
      : `${formatRate(outcome.touchedBytesPerSecond)} touched`,
    ...(outcome.backupBytesPerSecond === null ? [] : [`backup ${formatRate(outcome.backupBytesPerSecond)}`]),
    ...(outcome.restoreBytesPerSecond === null
      ? []
      : [`restore ${formatRate(outcome.restoreBytesPerSecond)}`]),
    `peak +${formatByteSize(outcome.peakRssBytes - outcome.baselineRssBytes)}`,
    `${outcome.wrongBytes} wrong bytes, ${outcome.lostPages} lost pages`,
    `${outcome.seconds.toFixed(1)} s`,
  ]
  return wrapForTerminal(`${isCleanCase(outcome) ? good('✓') : bad('✗')} ${name}: ${figures.join(', ')}`)
}

/** Everything that a run has to say at the terminal. */
export function renderTables(run: RunResult): string {
  const tables = [
    wholeBufferTable(run),
    workloadTable(run),
    run.s3 && textTable(loopHead, loopRows(run.s3), 1),
    run.s3Matrix && textTable(matrixHead, matrixRows(run.s3Matrix), 1),
    peerTable(run),
    goalTable(run),
  ].flatMap((table) => (table === undefined ? [] : ['', table]))
  const notes = [
    ...run.ceilingNotes,
    ...missingPeerNotes(run),
    ...(run.s3 === undefined ? [] : s3Notes(run.s3)),
    ...shortenedLines(run.cases, run.settings.budgetSeconds),
  ].map((note) => styleText('dim', wrapForTerminal(`note: ${note}`)))
  const problems = [
    ...run.failedCases.map(failureText),
    ...run.cases.flatMap(({ backend, workload, errors, wrongFiles }) => [
      ...errors.slice(0, 3).map((error) => `${backend} · ${workload}: ${error}`),
      ...wrongFiles.slice(0, 3).map((file) => `${backend} · ${workload}: wrong SHA-256: ${file}`),
    ]),
  ].map((problem) => bad(wrapForTerminal(problem)))
  return [...tables, '', ...notes, ...problems, verdict(run)].join('\n')
}

function wholeBufferTable(run: RunResult): string | undefined {
  const rows = subjectsOf(run).flatMap((backend) => {
    const backup = backendMedian(run, backend, 'backupBytesPerSecond')
    const restore = backendMedian(run, backend, 'restoreBytesPerSecond')
    if (backup === undefined || restore === undefined) return []
    const single = ([4, 32] as const).map((depth) => {
      const rate = backendMedian(run, backend, `pageRestoresPerSecondDepth${depth}`)
      return rate === undefined ? '–' : `${(rate / 1000).toFixed(1)} k/s`
    })
    return [
      [
        backend,
        formatRate(backup),
        share(backup, ceilingOf(run, backend, 'backup')),
        formatRate(restore),
        share(restore, ceilingOf(run, backend, 'restore')),
        ...(['backupGivingBackBytesPerSecond', 'restoreIntoNewBytesPerSecond'] as const).map((name) =>
          formatRate(backendMedian(run, backend, name) ?? Number.NaN),
        ),
        ...single,
      ],
    ]
  })
  if (rows.length === 0) return undefined
  const head = [
    'whole buffers',
    'backup',
    'of ceiling',
    'restore',
    'of ceiling',
    'giving back',
    'into new',
    'pages, 4 deep',
    '32 deep',
  ]
  return textTable(head, rows, 1)
}

function workloadTable(run: RunResult): string | undefined {
  if (run.cases.length === 0) return undefined
  const head = [
    'workload',
    'GB/s touched',
    'wait p50 / p99',
    'loop p99 / max',
    'peak MiB',
    'shared',
    'CPU s/GiB',
    'wrong',
    'lost',
  ]
  const rows = run.cases.map((each) => {
    const spread = each.spread.touchedBytesPerSecond
    const wait = each.latencies.touch
    const shared = each.memory.peakSharedBytes
    return [
      `${each.backend} · ${each.workload}`,
      spread === undefined
        ? 'not measured'
        : `${gigabytes(spread.median)} (${gigabytes(spread.min)}–${gigabytes(spread.max)})`,
      wait === undefined ? '–' : `${formatMilliseconds(wait.p50Ms)} / ${formatMilliseconds(wait.p99Ms)}`,
      `${formatMilliseconds(each.eventLoopDelayP99Ms)} / ${formatMilliseconds(each.eventLoopDelayMaxMs)}`,
      mebibytes(each.peakRssBytes - each.baselineRssBytes),
      shared > 0 ? mebibytes(shared) : '–',
      each.cpuSecondsPerTouchedGiB.toFixed(2),
      count(each.wrongBytes),
      count(each.lostPages),
    ]
  })
  return textTable(head, rows, 1)
}

/** Backends and peers side by side, a row for each. */
function peerTable(run: RunResult): string | undefined {
  const subjects = comparedSubjects(run)
  if (subjects.length === 0) return undefined
  const figures = peerFigures(run)
  const rows = subjects.map((subject) => [
    subject,
    ...figures.map(({ value, digits }) => value(run, subject)?.toFixed(digits) ?? '–'),
  ])
  return textTable(['beside peers', ...figures.map(({ title }) => title.replaceAll(', ', '\n'))], rows, 1)
}

function goalTable(run: RunResult): string | undefined {
  const outcomes = judgeGoals(run)
  if (outcomes.length === 0) return undefined
  const rows = outcomes.map((each) => [
    each.subject,
    each.what,
    each.against,
    each.goal,
    each.met ? good(each.measured) : warn(each.measured),
  ])
  return textTable(['backend', 'what', 'against', 'goal', 'measured'], rows, 3)
}

function verdict(run: RunResult): string {
  const verified = run.cases.reduce((sum, each) => sum + each.verifiedBytes, 0)
  const wrong = run.cases.reduce((sum, each) => sum + each.wrongBytes, 0)
  const lost = run.cases.reduce((sum, each) => sum + each.lostPages, 0)
  const figures = `wrongBytes ${wrong}, lostPages ${lost}, ${formatByteSize(verified)} verified by SHA-256, ${run.seconds.toFixed(0)} s`
  return isClean(run)
    ? good(wrapForTerminal(`every byte came back: ${figures}`))
    : bad(wrapForTerminal(`NOT every byte came back, or a case failed: ${figures}`))
}

function share(rate: number, ceiling: { name: string; bytesPerSecond: number } | undefined): string {
  if (ceiling === undefined) return '–'
  return `${Math.round((rate / ceiling.bytesPerSecond) * 100)} % of ${ceilingTitle(ceiling.name)}`
}

function gigabytes(bytesPerSecond: number): string {
  return (bytesPerSecond / 1e9).toFixed(2)
}

function mebibytes(bytes: number): string {
  return (bytes / mebibyte).toFixed(1)
}

function count(value: number): string {
  return value === 0 ? '0' : bad(String(value))
}

function good(text: string): string {
  return styleText('green', text)
}

function warn(text: string): string {
  return styleText('yellow', text)
}

function bad(text: string): string {
  return styleText('red', text)
}
