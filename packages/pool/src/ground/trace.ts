import { nodeModule } from '../providers/resizable.ts'

/**
 * What a pool does, for whoever listens: channels of `node:diagnostics_channel`, where there is Node.
 *
 * ```ts
 * import { subscribe } from 'node:diagnostics_channel'
 * subscribe('spillway:pool:backup', (event) => console.log(event))
 * ```
 *
 * An event is only made when somebody listens. A listener that throws is its own problem: Node reports it, and the pool
 * goes on.
 */
export interface TraceEvent {
  /** Name of the pool. */
  readonly pool: string
  /** Label of the buffer, when there is one. */
  readonly buffer?: string | undefined
  /** Name of the backup, when there is one. */
  readonly backup?: string | undefined
  /** Pages that moved, or are wanted. */
  readonly pages: number
  readonly error?: Error | undefined
}

interface Channel {
  readonly hasSubscribers: boolean
  publish(event: TraceEvent): void
}

const silent: Channel = { hasSubscribers: false, publish: () => {} }
const makeChannel = nodeModule('node:diagnostics_channel')?.['channel'] as
  | ((name: string) => Channel)
  | undefined

function channel(name: string): Channel {
  return makeChannel?.(`spillway:pool:${name}`) ?? silent
}

/** A pool in messages and dumps; one without a name is just the pool. */
export function poolTitle(name: string): string {
  return name === unnamedPool ? 'pool' : `pool ${name}`
}

/** What a pool is called in events when it was given no name. */
export const unnamedPool = 'pool'

export const trace = {
  /** A call that stored pages came back. */
  backup: channel('backup'),
  /** A call that copied pages in came back. */
  restore: channel('restore'),
  /** Reclaim was asked for pages. */
  reclaim: channel('reclaim'),
  /** A claim has to wait. */
  wait: channel('wait'),
  /** A claim was refused. */
  refuse: channel('refuse'),
} as const

export { warn } from '@spillway/core'
