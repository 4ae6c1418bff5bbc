import { setTimeout as sleep } from 'node:timers/promises'
import type { CephControl } from '@spillway/test-s3-server'
import { Random } from '../random.ts'
import { UsageError } from '../usage-error.ts'
import type { FaultShares, S3Server, S3ServerOptions } from './server.ts'

/** What goes wrong with the service while a soak runs on it. */
export interface DisturbanceOptions {
  readonly kind: S3ServerOptions['kind']
  /** Daemons of the Ceph cluster are killed, or frozen, and come back. */
  readonly kill: boolean
  /** The embedded server refuses, breaks off, forgets to answer and answers wrong. */
  readonly faults: boolean
}

/** The options as they stand on the command line. */
export interface DisturbanceArguments {
  readonly backend: string
  readonly s3?: string
  readonly kill?: boolean
  readonly s3Faults?: boolean
}

/** Throws `UsageError` with one line that says what would be right. */
export function parseDisturbances(given: DisturbanceArguments): DisturbanceOptions {
  const { backend, s3 = 'embedded', kill = false, s3Faults = false } = given
  const kind = (['embedded', 'ceph', 'env'] as const).find((known) => known === s3)
  if (kind === undefined) throw new UsageError(`--s3 '${s3}' is not known; there are embedded, ceph, env`)
  const isS3 = backend.split(/[:+]/)[0] === 's3'
  if (kill && !(isS3 && kind === 'ceph')) throw new UsageError('--kill takes --backend s3 --s3 ceph')
  if (s3Faults && !(isS3 && kind === 'embedded'))
    throw new UsageError('--s3-faults takes --backend s3 --s3 embedded')
  return { kind, kill, faults: s3Faults }
}

/**
 * What the embedded server does wrong, per request. Flipped bits are rare, because a page that comes damaged twice in a row is
 * taken for damaged where it is stored: at 0.05 %, that is one restore in four million.
 */
const faultShares: FaultShares = { slowDown: 0.01, cut: 0.01, lostAnswer: 0.005, flipped: 0.0005 }

const shortestRestMs = 4_000
const longestRestMs = 16_000
const shortestOutageMs = 200
const longestOutageMs = 4_000

const blows = [
  'kill gateway',
  'kill gateway',
  'kill osd',
  'kill osd',
  'freeze gateway',
  'freeze osd',
] as const

/**
 * Disturbs the service until it is stopped:
 *
 *   rest ── kill or freeze a daemon ── outage ── start, or let go on, what is not running ── rest ── …
 *
 * What, when and for how long is drawn from the seed. Stopping leaves everything running.
 */
export class Disturbances implements AsyncDisposable {
  readonly counts: Record<string, number> = {}
  readonly #server: S3Server
  readonly #random: Random
  readonly #ending = new AbortController()
  readonly #onProblem: (problem: string) => void
  readonly #killing: Promise<void> | undefined
  readonly #startMs = performance.now()

  private constructor(server: S3Server, kill: boolean, seed: number, onProblem: (problem: string) => void) {
    this.#server = server
    this.#random = new Random(seed)
    this.#onProblem = onProblem
    if (kill) this.#killing = this.#killAgainAndAgain(server.daemons!)
  }

  /** @param onProblem is told when a daemon does not come back */
  static async start(
    server: S3Server,
    options: DisturbanceOptions,
    seed: number,
    onProblem: (problem: string) => void,
  ): Promise<Disturbances> {
    if (options.faults) await server.setFaults?.(faultShares)
    return new Disturbances(server, options.kill, seed, onProblem)
  }

  /** `kill osd 12, freeze gateway 3`; empty when nothing was disturbed. */
  summary(): string {
    return Object.entries(this.counts)
      .map(([name, count]) => `${name} ${count}`)
      .join(', ')
  }

  async stop(): Promise<void> {
    this.#ending.abort()
    await this.#killing
    await this.#server.setFaults?.({})
  }

  async #killAgainAndAgain(daemons: CephControl): Promise<void> {
    const { signal } = this.#ending
    const pause = (ms: number) => sleep(ms, undefined, { signal }).catch(() => {})
    try {
      await pause(shortestRestMs)
      while (!signal.aborted) {
        const blow = blows[this.#random.below(blows.length)]
        const outageMs = shortestOutageMs + this.#random.below(longestOutageMs - shortestOutageMs)
        const startMs = performance.now()
        if (blow === 'kill gateway') await daemons.killGateway()
        else if (blow === 'kill osd') await daemons.killOsd()
        else if (blow === 'freeze gateway') await daemons.freezeGateway()
        else await daemons.freezeOsd()
        await pause(outageMs)
        await daemons.thaw()
        await daemons.restart()
        this.counts[blow] = (this.counts[blow] ?? 0) + 1
        const [atSeconds, lastedSeconds] = [startMs - this.#startMs, performance.now() - startMs].map((ms) =>
          (ms / 1000).toFixed(1),
        )
        console.error(`${atSeconds} s: ${blow}, back after ${lastedSeconds} s`)
        await pause(shortestRestMs + this.#random.below(longestRestMs - shortestRestMs))
      }
    } catch (failure) {
      this.#onProblem(`the cluster cannot be disturbed or started again: ${(failure as Error).message}`)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}
