import { styleText } from 'node:util'
import { formatByteSize } from '../sizes.ts'
import { textTable } from '../text-table.ts'
import type { Growth } from './growth.ts'
import type { MetadataCost } from './metadata.ts'
import { type PageWork, pageWorks } from './page-costs.ts'
import type { AllocatorSpeed, PinCost } from './quick-paths.ts'

/** All that `scale` measured. */
export interface ScaleFigures {
  readonly limitBytes: number
  readonly maxBytes: number
  readonly growth: Growth
  readonly metadata: readonly MetadataCost[]
  readonly pins: PinCost
  readonly allocator: AllocatorSpeed | undefined
}

export interface ScaleGoal {
  readonly what: string
  readonly goal: string
  readonly measured: string
  readonly met: boolean
  /** Whether the exit status depends on it: ratios and counts do, speeds of a busy machine do not. */
  readonly decides: boolean
}

const tebibyte = 1024 ** 4

const workNames: Record<PageWork, string> = {
  fresh: 'written for the first time',
  restore: 'restored',
  rewrite: 'restored and changed',
}

export function judgeScale(figures: ScaleFigures): ScaleGoal[] {
  const { growth, metadata, pins, allocator } = figures
  const goals: ScaleGoal[] = []
  const add = (what: string, goal: string, measured: string, met: boolean, decides = false) =>
    goals.push({ what, goal, measured, met, decides })
  const last = growth.points.at(-1)!
  for (const work of pageWorks) {
    const { ratio, ratioLow, ratioHigh } = last.costs[work]
    add(
      `cost of a page ${workNames[work]} with ${formatByteSize(last.backedUpBytes)} backed up, against a new buffer`,
      '≤ 1.10 ×',
      `${ratio.toFixed(2)} × (${ratioLow.toFixed(2)}–${ratioHigh.toFixed(2)})`,
      ratio <= 1.1,
      // Half of what grows in a rewrite is what the null backup itself has to know.
      work !== 'rewrite',
    )
  }
  for (const each of metadata) {
    const bytes = (perPage: number) => `${perPage.toFixed(2)} B`
    const name = `metadata, chunks of ${each.chunks}`
    add(
      `${name}, per resident page`,
      '≤ 8 B',
      bytes(each.perResidentPage),
      each.perResidentPage <= 8,
      each.chunks === '2 MiB',
    )
    add(
      `${name}, per backed-up page`,
      '≤ 16 B',
      bytes(each.perBackedUpPage),
      each.perBackedUpPage <= 16,
      true,
    )
  }
  const [one, many] = [pins.oneChunkNs.median, pins.manyChunksNs.median]
  const manyGoalNs = 1000 + 100 * pins.manyChunks
  add('pin of a resident chunk', '≤ 1100 ns', `${one.toFixed(0)} ns`, one <= 1100)
  add(
    `pin of ${pins.manyChunks} resident chunks`,
    `≤ ${manyGoalNs} ns`,
    `${many.toFixed(0)} ns`,
    many <= manyGoalNs,
  )
  if (allocator !== undefined) {
    const singles = allocator.singlePagesPerSecond.median
    const chunks = allocator.chunkBytesPerSecond.median
    add(
      'single pages taken and given back',
      '≥ 5 M/s',
      `${(singles / 1e6).toFixed(1)} M/s`,
      singles >= 5_000_000,
    )
    add(
      '2 MiB chunks taken and given back',
      '≥ 1 TiB/s',
      `${(chunks / tebibyte).toFixed(1)} TiB/s`,
      chunks >= tebibyte,
    )
  }
  return goals
}

export function renderScale(figures: ScaleFigures, goals: readonly ScaleGoal[]): string {
  const { growth, metadata, pins, allocator } = figures
  const growthRows = growth.points.map(({ backedUpBytes, costs }) => [
    formatByteSize(backedUpBytes),
    ...pageWorks.flatMap((work) => {
      const { largeNs, smallNs, ratio } = costs[work]
      return [largeNs.toFixed(1), smallNs.toFixed(1), `${ratio.toFixed(2)} ×`]
    }),
  ])
  const metadataRows = metadata.map((each) => [
    each.chunks,
    each.perResidentPage.toFixed(2),
    each.perBackedUpPage.toFixed(2),
    each.heapPerResidentPage.toFixed(2),
    each.heapPerBackedUpPage.toFixed(2),
  ])
  return [
    '',
    textTable(
      ['backed up', ...pageWorks.flatMap((work) => [`${work} ns/page`, 'new buffer', 'ratio'])],
      growthRows,
      1,
    ),
    textTable(
      ['metadata, chunks of', 'B/resident', 'B/backed up', 'heap B/resident', 'heap B/backed up'],
      metadataRows,
      1,
    ),
    textTable(
      ['what', 'goal', 'measured'],
      goals.map(({ what, goal, measured, met }) => [
        what,
        goal,
        styleText(met ? 'green' : 'yellow', measured),
      ]),
      1,
    ),
    `a further chunk in a pin takes ${pins.perChunkNs.toFixed(0)} ns; ` +
      `${formatByteSize(growth.backedUpPages * 4096)} backed up take ${formatByteSize(growth.metadataBytes)} of metadata ` +
      `(${(growth.metadataBytes / growth.backedUpPages).toFixed(3)} B/page; heap and null backup grew by ${formatByteSize(Math.max(0, growth.heapBytes))}); ` +
      `freeing takes ${growth.freeNsPerPage.toFixed(1)} ns/page; ${growth.seconds.toFixed(0)} s`,
    ...(allocator === undefined ? ['note: the allocator was not measured: its sources are not here'] : []),
  ].join('\n')
}
