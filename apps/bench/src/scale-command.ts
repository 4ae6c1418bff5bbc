import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { provenance } from './machine.ts'
import { writeJson } from './output.ts'
import { ProgressView } from './progress.ts'
import { judgeScale, renderScale, type ScaleFigures } from './scale/outcome.ts'
import { formatByteSize, gibibyte, mebibyte, parseByteSize } from './sizes.ts'
import { UsageError } from './usage-error.ts'

export interface ScaleArguments {
  readonly max: string
  readonly limit: string
  readonly json: string | boolean
}

/** The command `scale`: what the pool costs by itself. Resolves to 0 when nothing grows as it should not, else 1. */
export async function scaleCommand(given: ScaleArguments, signal: AbortSignal): Promise<number> {
  const maxBytes = parseByteSize(given.max, '--max')
  const limitBytes = parseByteSize(given.limit, '--limit')
  if (maxBytes < gibibyte) throw new UsageError(`--max '${given.max}' is too small; it takes at least 1 GiB`)
  if (limitBytes < 16 * mebibyte || limitBytes > maxBytes / 4) {
    throw new UsageError(
      `--limit '${given.limit}' is not from 16 MiB to a quarter of --max, ${formatByteSize(maxBytes / 4)}`,
    )
  }
  askForCollector()
  const { measureGrowth } = await import('./scale/growth.ts')
  const { measureMetadata } = await import('./scale/metadata.ts')
  const { measureAllocator, measurePins } = await import('./scale/quick-paths.ts')
  const view = new ProgressView()
  view.begin('scale', 'quick paths')
  try {
    const figures: ScaleFigures = {
      limitBytes,
      maxBytes,
      // First, while the heap is quiet.
      metadata: [await measureMetadata('2 MiB'), await measureMetadata('4 KiB')],
      pins: await measurePins(),
      allocator: await measureAllocator(),
      growth: await (() => {
        view.phase('growth')
        return measureGrowth(maxBytes, limitBytes, signal, (done) => view.progress(done, maxBytes))
      })(),
    }
    view.end()
    const goals = judgeScale(figures)
    console.log(renderScale(figures, goals))
    writeJson(given.json, {
      ...provenance(process.cwd()),
      ...figures,
      goals,
    })
    return goals.filter(({ decides }) => decides).every(({ met }) => met) ? 0 : 1
  } finally {
    view.end()
  }
}

/** Heap sizes mean something only after a collection. */
function askForCollector(): void {
  if (globalThis.gc !== undefined) return
  setFlagsFromString('--expose-gc')
  globalThis.gc = runInNewContext('gc') as typeof globalThis.gc
}
