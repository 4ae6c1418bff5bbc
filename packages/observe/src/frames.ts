import { type HostTimer, nowMs, startTimer, stopTimer } from '@spillway/core'
import { type BufferMap, mapStates, type Pool } from '@spillway/pool'
import { boundsSeconds, CallDurations, callKinds } from './call-durations.ts'
import { backupNames, budgetNames, poolNames } from './names.ts'
import { type BackupReading, budgetsOf, costsOf, openBackupsOf } from './readings.ts'

/** Cells of all heat maps of a frame; each costs some ten nanoseconds. */
const mostCells = 16_384
const mostCellsPerBuffer = 1024
/** Pages that look at the same time get the same frame. */
const freshMs = 150
/** How many times as long as they took the maps are left as they are. */
const mapsRest = 99
/** Nobody looks any more. */
const quietMs = 5000

/** What a frame says of the buffers of a pool, apart from the states of their cells. */
interface Layout {
  /** Changes when any of the layouts does. */
  readonly version: number
  readonly pools: readonly (readonly BufferMap[])[]
}

/**
 * What the dashboard shows, as the page gets it: four bytes with the length of the text that follows, figures as JSON, and then one
 * byte for each cell of the heat maps. Which buffers there are is said only when the page does not know it yet.
 */
export class Frames {
  readonly #pools: () => readonly Pool[]
  #layout: Layout = { version: 0, pools: [] }
  /** Names of the pools of the layout. */
  #names = ''
  #cells: Uint8Array = new Uint8Array(0)
  #nextMapsMs = 0
  /** Listens while somebody looks. */
  #durations: CallDurations | undefined
  #quiet: HostTimer | undefined
  #last: { readonly atMs: number; readonly head: object; readonly cells: Uint8Array } | undefined

  constructor(pools: () => readonly Pool[]) {
    this.#pools = pools
  }

  /** For a page that knows a version of the layout. */
  frame(knownLayout: number): Buffer {
    this.#keepListening()
    const now = nowMs()
    if (this.#last === undefined || now - this.#last.atMs >= freshMs)
      this.#last = { atMs: now, ...this.#look() }
    const { version, pools } = this.#layout
    const layout =
      knownLayout === version ? { version } : { version, pools: pools.map((maps) => maps.map(layoutOf)) }
    const text = Buffer.from(JSON.stringify({ ...this.#last.head, layout }))
    const length = Buffer.alloc(4)
    length.writeUInt32LE(text.length)
    return Buffer.concat([length, text, this.#last.cells])
  }

  close(): void {
    stopTimer(this.#quiet)
    this.#stopListening()
  }

  #keepListening(): void {
    this.#durations ??= new CallDurations()
    stopTimer(this.#quiet)
    this.#quiet = startTimer(() => this.#stopListening(), quietMs)
    this.#quiet.unref?.()
  }

  #stopListening(): void {
    this.#durations?.close()
    this.#durations = undefined
    this.#last = undefined
  }

  #look() {
    const pools = this.#pools()
    const figures = pools.map(poolFigures)
    const names = figures.map(({ name }) => name).join('\n')
    if (names !== this.#names || nowMs() >= this.#nextMapsMs) this.#takeMaps(pools, figures)
    if (names !== this.#names) {
      // Pools of the same shape are others all the same.
      this.#names = names
      this.#layout = { ...this.#layout, version: this.#layout.version + 1 }
    }
    const head = {
      atMs: nowMs(),
      pid: process.pid,
      node: process.versions.node,
      mapStates,
      boundsSeconds,
      pools: figures,
      budgets: budgetsOf(pools).map((budget) => ({ ...budget.stats(), name: budgetNames.of(budget) })),
      backups: openBackupsOf(pools).map(backupFigures),
      durations: this.#durationFigures(),
    }
    return { head, cells: this.#cells }
  }

  /** Maps of all pools, and no more often than that it takes a hundredth of the time, however many buffers there are. */
  #takeMaps(
    pools: readonly Pool[],
    figures: readonly { readonly stats: { readonly buffers: number } }[],
  ): void {
    const startMs = nowMs()
    const cells = Math.floor(mostCells / Math.max(1, pools.length))
    const maps = pools.map((pool, index) => {
      const share = Math.floor(cells / Math.max(1, figures[index]!.stats.buffers))
      return pool.maps({ cells, cellsPerBuffer: Math.max(1, Math.min(mostCellsPerBuffer, share)) })
    })
    this.#noteLayout(maps)
    this.#cells = joined(maps)
    const endMs = nowMs()
    this.#nextMapsMs = endMs + mapsRest * (endMs - startMs)
  }

  #noteLayout(pools: readonly (readonly BufferMap[])[]): void {
    const former = this.#layout.pools
    const isSame =
      former.length === pools.length && pools.every((maps, index) => isSameLayout(maps, former[index]!))
    if (!isSame) this.#layout = { version: this.#layout.version + 1, pools }
  }

  #durationFigures() {
    return callKinds.flatMap((kind) =>
      [...this.#durations!.of(kind)].map(([name, { counts, sumSeconds, count, errors }]) => ({
        kind: kind.name,
        name,
        counts,
        sumSeconds,
        count,
        errors,
      })),
    )
  }
}

function poolFigures(pool: Pool) {
  const { budget, pageSizeBytes } = pool
  return {
    name: poolNames.of(pool),
    title: pool.name,
    pageSizeBytes,
    stats: pool.stats(),
    budget: budget === undefined ? undefined : budgetNames.of(budget),
    backups: pool.backups.map((backup) => backupNames.of(backup)),
  }
}

/** What every backup counts, and what those that pay for requests do. Errors that only it knows of are told in its own words. */
function backupFigures({ name, title, stats, pageSizeBytes }: BackupReading) {
  const { livePages, backedUpPages, copiedPages, mediumBytes, writebackErrors } = stats
  const { backgroundError } = stats as { readonly backgroundError?: Error }
  const costs = costsOf(stats)
  return {
    name,
    title,
    pageSizeBytes,
    livePages,
    backedUpPages,
    copiedPages,
    mediumBytes,
    writebackErrors,
    problem: backgroundError?.message,
    costs: costs === undefined ? undefined : { requests: costs.requests, dollars: costs.dollars },
  }
}

function layoutOf({ label, sizeBytes, cellBytes, cells }: BufferMap) {
  return [label, sizeBytes, cellBytes, cells.length]
}

function isSameLayout(maps: readonly BufferMap[], former: readonly BufferMap[]): boolean {
  if (maps.length !== former.length) return false
  for (let index = 0; index < maps.length; index++) {
    const map = maps[index]!
    const { label, sizeBytes, cellBytes } = former[index]!
    if (map.label !== label || map.sizeBytes !== sizeBytes || map.cellBytes !== cellBytes) return false
  }
  return true
}

function joined(pools: readonly (readonly BufferMap[])[]): Uint8Array {
  let length = 0
  for (const maps of pools) for (const { cells } of maps) length += cells.length
  const all = new Uint8Array(length)
  let at = 0
  for (const maps of pools) {
    for (const { cells } of maps) {
      all.set(cells, at)
      at += cells.length
    }
  }
  return all
}
