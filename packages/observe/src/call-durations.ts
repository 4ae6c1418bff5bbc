import { tracingChannel } from 'node:diagnostics_channel'
import type { TracedCall } from '@spillway/pool'

/** Upper bounds of the buckets, in seconds: from a copy in memory to a service that hardly answers. */
export const boundsSeconds = [
  0.000_01, 0.000_025, 0.000_1, 0.000_25, 0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1, 2.5, 10,
] as const

/** The calls of one kind: which channel they come from, and what tells them apart. */
export const callKinds = [
  { channel: 'pool:page-in', by: 'pool', name: 'pool.page_in', help: 'How long pages took to come in.' },
  { channel: 'pool:page-out', by: 'pool', name: 'pool.page_out', help: 'How long chunks took to be stored.' },
  {
    channel: 'backup:copy-pages',
    by: 'backup',
    name: 'backup.copy_pages',
    help: 'How long a backup took to copy pages.',
  },
  {
    channel: 'backup:backup-pages',
    by: 'backup',
    name: 'backup.backup_pages',
    help: 'How long a backup took to store pages.',
  },
] as const
export type CallKind = (typeof callKinds)[number]

/** How long calls took. */
export interface DurationHistogram {
  /** Calls of each bucket, not summed up; the last is for those above all bounds. */
  readonly counts: readonly number[]
  readonly sumSeconds: number
  readonly count: number
  readonly errors: number
}

class Histogram implements DurationHistogram {
  readonly counts: number[] = new Array(boundsSeconds.length + 1).fill(0)
  sumSeconds = 0
  count = 0
  errors = 0

  add(seconds: number, hasFailed: boolean): void {
    const found = boundsSeconds.findIndex((bound) => seconds <= bound)
    this.counts[found === -1 ? boundsSeconds.length : found]!++
    this.sumSeconds += seconds
    this.count++
    if (hasFailed) this.errors++
  }
}

/** Told of each call that ends. */
export type CallListener = (kind: CallKind, name: string, call: TracedCall) => void

/** Listens to the calls of all pools of this thread. Returns what ends it. */
export function listenToCalls(listener: CallListener): () => void {
  const stops = callKinds.map((kind) => {
    const { asyncEnd } = tracingChannel(`spillway:${kind.channel}`)
    const listen = (message: unknown) => {
      const call = message as TracedCall
      listener(kind, call[kind.by] ?? '', call)
    }
    asyncEnd.subscribe(listen)
    return () => asyncEnd.unsubscribe(listen)
  })
  return () => {
    for (const stop of stops.splice(0)) stop()
  }
}

/**
 * Listens to the calls of all pools of this thread from now on, and counts how long they take. Each call costs an object and less than a
 * microsecond while somebody listens; reads and writes that find their pages in memory are no calls. Stop it with `close` when nobody looks.
 */
export class CallDurations implements Disposable {
  readonly #histograms = new Map(callKinds.map((kind) => [kind, new Map<string, Histogram>()] as const))
  readonly #stop = listenToCalls((kind, name, call) => {
    const byName = this.#histograms.get(kind)!
    const histogram = byName.get(name) ?? new Histogram()
    byName.set(name, histogram)
    histogram.add(secondsOf(call), call.error !== undefined)
  })

  /** @internal Of one kind of call, by the name of the pool or the backup. */
  of(kind: CallKind): ReadonlyMap<string, DurationHistogram> {
    return this.#histograms.get(kind)!
  }

  /** Stops listening; what was counted stays. */
  close(): void {
    this.#stop()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** How long a call took that has ended. */
export function secondsOf({ durationMs = 0 }: TracedCall): number {
  return durationMs / 1000
}
