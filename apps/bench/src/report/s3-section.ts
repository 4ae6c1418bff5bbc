import type { RunResult } from '../results.ts'
import type { LoopsFindings } from '../s3/loops.ts'
import { loopHead, loopRows, matrixHead, matrixRows, s3Notes } from '../s3/outcome.ts'
import { formatMilliseconds } from '../sizes.ts'
import type { LatencySummary } from '../statistics.ts'
import type { Colours } from './colours.ts'
import { dataTable, escapeText, figure } from './html.ts'
import { s3Chart } from './throughput-charts.ts'

/** backup-s3 beside loops of bare calls, and with latency and errors; empty for a run without S3. */
export function s3Section(run: RunResult, colours: Colours): string {
  if (run.s3 === undefined) return ''
  const notes = s3Notes(run.s3).map((note) => `<p>${escapeText(note)}</p>`)
  return `${figure(
    'S3 beside bare calls',
    s3Chart(run.s3, colours),
    'Bytes per second of whole 8 MiB segments, in turn in every round and at the same concurrency: bare calls of the SDK with an object of 8 MiB ' +
      'each; backup-s3 with <code>pageHttpHandler()</code> and with the SDK\u2019s own handler; bare calls with an object for each 4 KiB page. ' +
      'Processor time is of the client\u2019s process and includes comparing what came back. \u201cOf bare\u201d is the median over the rounds of the ' +
      'ratio to the loop of 8 MiB objects in the same round.',
  )}${textTable('s3', loopHead, loopRows(run.s3))}
${notes.join('\n')}
${countsTable(run.s3)}
${matrixTable(run)}`
}

function countsTable(findings: LoopsFindings): string {
  const { putsPerGiB, getsPerGiB, hedges, segmentsRead, overReadBytesPerPage } = findings
  const facts: [string, string][] = [
    ['PUT requests per GiB', putsPerGiB.toFixed(1)],
    [
      'GET requests per GiB',
      `${getsPerGiB.toFixed(1)}, ${hedges} hedges in ${segmentsRead} segments included`,
    ],
    ['over-read per random page', `${overReadBytesPerPage.toFixed(0)} B`],
    ['restore of a segment', latencies(findings.segmentRestore)],
    ['restore of one page', latencies(findings.pageRestore)],
    ['wrong answers', `${findings.wrongAnswers}`],
  ]
  const rows = facts.map(([name, value]) => `<dt>${escapeText(name)}</dt><dd>${escapeText(value)}</dd>`)
  return `<dl>${rows.join('\n')}</dl>`
}

function latencies(summary: LatencySummary | undefined): string {
  if (summary === undefined) return '\u2013'
  const { p50Ms, p99Ms, maxMs, count } = summary
  const [p50, p99, max] = [p50Ms, p99Ms, maxMs].map(formatMilliseconds)
  return `p50 ${p50}, p99 ${p99}, max ${max} (${count})`
}

function matrixTable(run: RunResult): string {
  if (run.s3Matrix === undefined) return ''
  return `<h2>S3 with latency and errors</h2>
<p>Latency is added to every answer, and a share of the requests is answered with 503. The ideal is what the concurrency allows: latency added to the
time that a request took without it, at the same concurrency in the same round. Requests that wait elsewhere wait less for each other, so the ratio may be above 1.</p>
${textTable('s3-latency-errors', matrixHead, matrixRows(run.s3Matrix))}`
}

/** Rows of which all cells but the first are figures, written already. */
function textTable(name: string, head: readonly string[], rows: readonly (readonly string[])[]): string {
  const columns = head.map((title, index) => ({
    title,
    value: (row: readonly string[]) => row[index],
    ...(index === 0 ? {} : { digits: 0 }),
  }))
  return dataTable(name, columns, rows)
}
