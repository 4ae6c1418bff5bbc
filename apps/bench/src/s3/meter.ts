import { mebibyte } from '../sizes.ts'

export const segmentBytes = 8 * mebibyte
export const pageBytes = 4096

/** Ways to move bytes to and from the service, each measured in every round. */
export const ways = [
  'bare 8 MiB objects',
  'backup-s3',
  "backup-s3, SDK's handler",
  'one object per page',
] as const
export type Way = (typeof ways)[number]
export const verbs = ['PUT', 'GET'] as const
export type Verb = (typeof verbs)[number]

/** One way to move bytes to or from the service: figures of every round. */
export interface LoopFigures {
  readonly way: Way
  readonly verb: Verb
  readonly bytesPerSecond: number[]
  /** Processor milliseconds of this process per 8 MiB, and per request. */
  readonly cpuMsPer8MiB: number[]
  readonly cpuMsPerRequest: number[]
}

/** Rate and processor time of what ran. */
export interface Measured {
  readonly bytesPerSecond: number
  readonly cpuMs: number
}

/** Makes `count` calls, `workers` at a time, and says how fast and at which cost. */
export async function measure(
  workers: number,
  count: number,
  bytes: number,
  call: (worker: number, index: number) => Promise<void>,
): Promise<Measured> {
  const cpuBefore = process.cpuUsage()
  const startMs = performance.now()
  await inParallel(workers, count, call)
  const seconds = (performance.now() - startMs) / 1000
  const { user, system } = process.cpuUsage(cpuBefore)
  return { bytesPerSecond: (count * bytes) / seconds, cpuMs: (user + system) / 1000 }
}

export async function inParallel(
  workers: number,
  count: number,
  call: (worker: number, index: number) => Promise<void>,
): Promise<void> {
  let next = 0
  const work = async (worker: number) => {
    while (next < count) await call(worker, next++)
  }
  await Promise.all(Array.from({ length: workers }, (_, worker) => work(worker)))
}
