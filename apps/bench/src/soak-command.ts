import { tmpdir } from 'node:os'
import { chooseBackend } from './backends.ts'
import { provenance } from './machine.ts'
import { writeJson } from './output.ts'
import { Disturbances, parseDisturbances } from './s3/disturbances.ts'
import { startS3Server } from './s3/server.ts'
import { makeScratch } from './scratch.ts'
import { formatByteSize, mebibyte, parseByteSize } from './sizes.ts'
import { MemoryTrendWatcher } from './soak/memory-trend.ts'
import { emptyTally, type SoakTally } from './soak/operations.ts'
import { runStage } from './soak/stage.ts'
import { UsageError } from './usage-error.ts'

export interface SoakArguments {
  readonly minutes: string
  readonly overcommit: string
  readonly backend: string
  readonly limit: string
  readonly faults?: boolean
  readonly seed?: string
  readonly directory?: string
  readonly s3?: string
  readonly kill?: boolean
  readonly s3Faults?: boolean
  readonly json: string | boolean
}

interface SoakOptions {
  readonly durationMs: number
  readonly overcommits: readonly number[]
  readonly backend: string
  readonly limitBytes: number
  readonly faults: boolean
  readonly seed: number
}

/** How often a line tells how far it is, on a terminal and elsewhere. */
const lineEveryMs = process.stderr.isTTY ? 1000 : 30_000

/** The command `soak`. Resolves to 0 when every byte was right, nothing was left behind and memory stayed flat, else 1. */
export async function soakCommand(given: SoakArguments, signal: AbortSignal): Promise<number> {
  const options = parseSoakOptions(given)
  const { backend, overcommits, durationMs, limitBytes, faults, seed } = options
  const disturbing = parseDisturbances(given)
  using scratch = makeScratch(given.directory ?? tmpdir())
  const tally = emptyTally()
  const startMs = performance.now()
  console.log(
    `soak: ${backend}, limit ${formatByteSize(limitBytes)}, ${overcommits.join(', ')} times the limit, ` +
      `${(durationMs / 60_000).toFixed(1)} minutes, ${faults ? 'with' : 'without'} faults, seed ${seed}`,
  )
  if (faults) process.removeAllListeners('warning').on('warning', noteWarning)
  await using s3 = backend.startsWith('s3')
    ? await startS3Server({ kind: disturbing.kind, latencyMs: 0, errorShare: 0 })
    : undefined
  const addProblem = (problem: string) => tally.problems.push(problem)
  await using disturbances = s3 && (await Disturbances.start(s3, disturbing, seed, addProblem))
  using watcher = new MemoryTrendWatcher()
  const lines = setInterval(() => console.error(progressLine(tally, startMs, durationMs)), lineEveryMs)
  try {
    for (const [index, overcommit] of overcommits.entries()) {
      if (tally.problems.length > 0) break
      const stageMs = Math.max(0, (durationMs - (performance.now() - startMs)) / (overcommits.length - index))
      await runStage({
        backend,
        limitBytes,
        overcommit,
        durationMs: stageMs,
        faults,
        seed: seed + index,
        directory: scratch.path,
        s3: s3?.access,
        signal,
        tally,
      })
    }
  } finally {
    clearInterval(lines)
  }
  await disturbances?.stop()
  const left = (await s3?.list()) ?? []
  if (left.length > 0) addProblem(`${left.length} objects are left in the bucket, the first is ${left[0]}`)
  const disturbed = disturbances?.summary()
  if (disturbed) console.log(`daemons: ${disturbed}`)
  const memory = watcher.trend()
  const seconds = (performance.now() - startMs) / 1000
  if (memory.flat === false) tally.problems.push(`memory grew by ${formatByteSize(memory.grownBytes)}`)
  for (const problem of tally.problems) console.log(`✗ ${problem}`)
  const codes = Object.entries(tally.failedCodes).map(([code, count]) => ` ${code} ${count}`)
  const clean = tally.wrongBytes === 0 && tally.problems.length === 0
  console.log(
    `${clean ? '✓' : '✗'} ${tally.operations} operations, ${tally.wrongBytes} wrong bytes, ${formatByteSize(tally.verifiedBytes)} verified, ` +
      `${formatByteSize(tally.writtenBytes)} written, ${tally.failedCalls} calls failed as they may${codes.join(',')}; memory: peak ${formatByteSize(memory.peakBytes)}, ` +
      `slope ${(memory.slopeBytesPerHour / mebibyte).toFixed(1)} MiB/h, grown ${(memory.grownBytes / mebibyte).toFixed(1)} MiB${memory.flat === null ? ' (too short to judge)' : ''}; seed ${seed}, ${seconds.toFixed(0)} s`,
  )
  writeJson(given.json, {
    ...provenance(process.cwd()),
    ...options,
    disturbing,
    disturbances: disturbances?.counts,
    ...tally,
    memory,
    seconds,
    clean,
  })
  return clean ? 0 : 1
}

/** Throws `UsageError` with one line that names the value. */
export function parseSoakOptions(given: SoakArguments): SoakOptions {
  const minutes = Number(given.minutes)
  if (given.minutes.trim() === '' || !(minutes > 0 && minutes <= 100_000)) {
    throw new UsageError(`--minutes '${given.minutes}' is not a number above 0`)
  }
  const limitBytes = parseByteSize(given.limit, '--limit')
  if (limitBytes < 8 * mebibyte)
    throw new UsageError(`--limit '${given.limit}' is too small; it takes at least 8 MiB`)
  const seed = given.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(given.seed)
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new UsageError(`--seed '${given.seed}' is not a whole number`)
  chooseBackend(given.backend)
  return {
    durationMs: minutes * 60_000,
    overcommits: parseOvercommits(given.overcommit),
    backend: given.backend,
    limitBytes,
    faults: given.faults ?? false,
    seed,
  }
}

/** `4`, or `2..10`: five stages from the one to the other. */
function parseOvercommits(text: string): number[] {
  const bounds = text.split('..').map((part) => (part.trim() === '' ? Number.NaN : Number(part)))
  const [from, to = from] = bounds
  if (bounds.length > 2 || !(from >= 1 && to >= from && to <= 1000)) {
    throw new UsageError(`--overcommit '${text}' is not a factor from 1 to 1000, or two of them like 2..10`)
  }
  if (from === to) return [from]
  return [0, 1, 2, 3, 4].map((step) => from + ((to - from) * step) / 4)
}

const expectedWarnings: readonly string[] = ['SPILLWAY_BACKUP_FAILING', 'SPILLWAY_DROP_FAILED']

/** That backups fail is what faults are for; other warnings are shown. */
function noteWarning(warning: Error & { readonly code?: string }): void {
  if (!expectedWarnings.includes(warning.code ?? '')) console.error(String(warning))
}

function progressLine(tally: SoakTally, startMs: number, durationMs: number): string {
  const doneShare = Math.min(1, (performance.now() - startMs) / durationMs)
  return (
    `${Math.floor(doneShare * 100)} %  ${tally.operations} operations  ${formatByteSize(tally.verifiedBytes)} verified  ` +
    `${tally.wrongBytes} wrong bytes  ${tally.failedCalls} failed calls  ${formatByteSize(process.memoryUsage.rss())} resident`
  )
}
