import { nowMs } from '@spillway/core'
import { nodeModule } from '../providers/resizable.ts'

/**
 * A call that was traced from its start to its end, as listeners of a `tracingChannel` of `node:diagnostics_channel` see it. The same
 * object comes with `start` and with `asyncEnd`, and with `error` before that when the call brought one.
 */
export interface TracedCall {
  /** Name of the pool; absent for calls to a backup, which may serve several. */
  readonly pool?: string | undefined
  /** Label of the buffer, when it is one. */
  readonly buffer?: string | undefined
  /** Name of the backup, when there is one. */
  readonly backup?: string | undefined
  /** Pages and bytes that are to move. */
  readonly pages: number
  readonly bytes: number
  /** Pages and bytes that have moved, at the end. */
  movedPages?: number
  movedBytes?: number
  /** How long it took, at the end. */
  durationMs?: number
  error?: Error
}

interface Channel {
  readonly hasSubscribers: boolean
  publish(call: TracedCall): void
}

interface TracingChannel {
  readonly start: Channel
  readonly asyncEnd: Channel
  readonly error: Channel
}

const make = nodeModule('node:diagnostics_channel')?.['tracingChannel'] as
  | ((name: string) => TracingChannel)
  | undefined

/** Tells of the end of a call: what it moved, and what stopped it. */
export type CallEnd = (movedPages: number, error: Error | undefined) => void

/** Calls of one kind, for whoever listens. Nothing is made when nobody does. */
export class CallTracing {
  readonly #channel: TracingChannel | undefined

  constructor(name: string) {
    this.#channel = make?.(`spillway:${name}`)
  }

  /** Whether anybody listens now. */
  get isHeard(): boolean {
    const channel = this.#channel
    if (channel === undefined) return false
    // A tracing channel of Bun (1.4.5) does not tell of itself whether it has subscribers; its parts do.
    return channel.start.hasSubscribers || channel.asyncEnd.hasSubscribers || channel.error.hasSubscribers
  }

  /** Tells of a call that begins. Returns what tells of its end; call it once. */
  begin(call: TracedCall, startMs = nowMs()): CallEnd {
    const { start, asyncEnd, error: failed } = this.#channel!
    start.publish(call)
    return (movedPages, error) => {
      call.movedPages = movedPages
      call.movedBytes = call.pages === 0 ? 0 : (movedPages * call.bytes) / call.pages
      call.durationMs = nowMs() - startMs
      if (error !== undefined) {
        call.error = error
        failed.publish(call)
      }
      asyncEnd.publish(call)
    }
  }
}

export const tracing = {
  /** Chunks are stored: room that has to be made in the backup first is part of it. */
  pageOut: new CallTracing('pool:page-out'),
  /** Pages come in: a turn of the event loop that they have to wait for is part of it. */
  pageIn: new CallTracing('pool:page-in'),
  /** One call to a backup. */
  backupPages: new CallTracing('backup:backup-pages'),
  copyPages: new CallTracing('backup:copy-pages'),
} as const
