import { tmpdir } from 'node:os'
import { chooseBackend } from './backends.ts'
import type { LargeFindings, LargeOrder } from './large/protocol.ts'
import { type LargeMemory, startLarge } from './large/start-large.ts'
import { provenance } from './machine.ts'
import { writeJson } from './output.ts'
import { ProgressView } from './progress.ts'
import { makeScratch } from './scratch.ts'
import { formatByteSize, formatMilliseconds, formatRate, mebibyte, parseByteSize } from './sizes.ts'
import { UsageError } from './usage-error.ts'

export interface LargeArguments {
  readonly size: string
  readonly limit: string
  readonly headroom: string
  readonly backend: string
  readonly seed: string
  readonly directory?: string
  readonly json: string | boolean
}

/** The command `large`. Resolves to 0 when every byte was right and memory stayed within limit and headroom, else 1. */
export async function largeCommand(given: LargeArguments, signal: AbortSignal): Promise<number> {
  const { headroomBytes, ...options } = parseLargeOptions(given)
  const { sizeBytes, limitBytes } = options
  using scratch = makeScratch(given.directory ?? tmpdir())
  const view = new ProgressView()
  view.begin(`${options.backend} · ${formatByteSize(sizeBytes)} under ${formatByteSize(limitBytes)}`, 'write')
  try {
    let shown = 'write'
    const { findings, memory } = await startLarge(
      { ...options, directory: scratch.path },
      signal,
      (phase, done) => {
        if (phase !== shown) view.phase(phase)
        shown = phase
        view.progress(done, sizeBytes)
      },
    )
    view.end()
    const rightBytes = findings.wrongBytes === 0 && findings.verifiedBytes === sizeBytes
    const aboveLimitBytes = memory && memory.peakBytes - memory.baselineBytes - limitBytes
    const clean = rightBytes && (aboveLimitBytes === undefined || aboveLimitBytes <= headroomBytes)
    console.log(renderLarge(options, findings, memory, headroomBytes, clean))
    writeJson(given.json, {
      ...provenance(scratch.path),
      ...options,
      headroomBytes,
      ...findings,
      memory: memory ?? null,
      clean,
    })
    return clean ? 0 : 1
  } finally {
    view.end()
  }
}

/** Throws `UsageError` with one line that names the value. */
export function parseLargeOptions(
  given: LargeArguments,
): Omit<LargeOrder, 'directory'> & { readonly headroomBytes: number } {
  const limitBytes = parseByteSize(given.limit, '--limit')
  const sizeBytes = Math.ceil(parseByteSize(given.size, '--size') / mebibyte) * mebibyte
  if (limitBytes < 8 * mebibyte)
    throw new UsageError(`--limit '${given.limit}' is too small; it takes at least 8 MiB`)
  if (sizeBytes < 2 * limitBytes)
    throw new UsageError(`--size '${given.size}' is not large; it takes at least twice --limit`)
  const seed = Number(given.seed)
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new UsageError(`--seed '${given.seed}' is not a whole number`)
  const { description, spoiler } = chooseBackend(given.backend)
  if (spoiler !== undefined || description.storesInProcess || description.name === 's3') {
    throw new UsageError(`--backend '${given.backend}' is not one of file, shmem and their variants`)
  }
  const headroomBytes = parseByteSize(given.headroom, '--headroom')
  return { backend: given.backend, sizeBytes, limitBytes, seed, headroomBytes }
}

function renderLarge(
  { sizeBytes, limitBytes }: { readonly sizeBytes: number; readonly limitBytes: number },
  findings: LargeFindings,
  memory: LargeMemory | undefined,
  headroomBytes: number,
  clean: boolean,
): string {
  const { verifiedBytes, wrongBytes, randomReads, secondsByPhase } = findings
  const rate = (phase: 'write' | 'verify') => formatRate(sizeBytes / secondsByPhase[phase])
  const inMebibytes = (bytes: number) => `${(bytes / mebibyte).toFixed(1)} MiB`
  const grown = memory && memory.peakBytes - memory.baselineBytes
  return [
    `${clean ? '✓' : '✗'} ${formatByteSize(sizeBytes)} under ${formatByteSize(limitBytes)}: ${formatByteSize(verifiedBytes)} verified, ${wrongBytes} wrong bytes; ` +
      `written at ${rate('write')}, ${randomReads} ranges read at random in ${secondsByPhase.random.toFixed(1)} s, verified at ${rate('verify')}`,
    memory === undefined || grown === undefined
      ? '  memory: this system does not tell'
      : `  memory: peak ${inMebibytes(grown)} above the ${inMebibytes(memory.baselineBytes)} of the empty process, limit ${
          grown > limitBytes ? '+' : '−'
        } ${inMebibytes(Math.abs(grown - limitBytes))} (at most + ${inMebibytes(headroomBytes)})`,
    `  event loop: p99 ${formatMilliseconds(findings.eventLoopDelayP99Ms)}, max ${formatMilliseconds(findings.eventLoopDelayMaxMs)}`,
  ].join('\n')
}
