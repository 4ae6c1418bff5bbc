import { type HostTimer, isSpillwayError, nowMs, SpillwayError, startTimer, stopTimer } from '@spillway/core'
import type { S3Service } from '../service/service.ts'
import type { HedgePolicy } from './hedging.ts'
import { RangeSink, type RangeTarget } from './range-target.ts'

export interface RangeFetch {
  readonly key: string
  readonly target: RangeTarget
  readonly signal: AbortSignal
  readonly retryMayFail: boolean
}

export interface FetchCounters {
  resumes: number
}

/** What an attempt is stopped with when the memory it writes into is wanted back; the others' bytes are fetched on. */
export class Interrupted extends Error {}

/**
 * Fills a target, whatever it takes:
 *
 *   round: first attempt ──(silent for longer than usual)──▶ second attempt; the first to answer writes, the other ends
 *   broke off, fell silent, 5xx ─▶ pause ─▶ next round, from the byte that was reached
 *
 * The pages' own checksums tell whether the bytes are of the object that was written: ETags change with some services.
 * Rejects when the retry policy gives up; the target then holds what has come.
 */
export async function fetchRange(
  fetch: RangeFetch,
  service: S3Service,
  hedging: HedgePolicy,
  counters: FetchCounters,
): Promise<void> {
  const { target, signal, retryMayFail } = fetch
  let failures = 0
  const startedAt = nowMs()
  const { minDownloadBytesPerSecond } = service.limits
  while (!target.isComplete) {
    const before = target.position
    try {
      await fetchOnce(fetch, service, hedging)
      service.retry.succeeded()
    } catch (error) {
      if (signal.aborted) throw signal.reason
      if (target.position > before) failures = 0
      if (!(error instanceof Interrupted)) {
        // What has come buys the time that it may have taken, and no more: a body that trickles must end.
        const deadline =
          service.retry.deadline(startedAt) + (target.position / minDownloadBytesPerSecond) * 1000
        await service.retry.pause(error, ++failures, deadline, { signal, retryMayFail })
      }
      if (target.position > 0) counters.resumes++
    }
  }
}

function fetchOnce(
  { key, target, signal, retryMayFail }: RangeFetch,
  service: S3Service,
  hedging: HedgePolicy,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const controllers = new Set<AbortController>()
    let hedgeTimer: HostTimer | undefined
    let firstError: unknown
    let progressAt = nowMs()
    const received = target.onProgress
    const settle = (finish: () => void) => {
      stopTimer(hedgeTimer)
      signal.removeEventListener('abort', onAbort)
      target.onProgress = received
      const reason = () =>
        signal.aborted
          ? signal.reason
          : new SpillwayError('EINTR', 'another request for the same bytes was faster')
      for (const controller of controllers) controller.abort(reason())
      finish()
    }
    const onAbort = () => settle(() => reject(signal.reason))
    const attempt = () => {
      const controller = new AbortController()
      controllers.add(controller)
      const startedAt = nowMs()
      const sink = new RangeSink(
        target,
        (reason) => controller.abort(reason),
        () => {
          progressAt = nowMs()
          hedging.answered(target.bytes, progressAt - startedAt)
        },
      )
      const request = {
        key,
        offset: target.offset + sink.from,
        bytes: target.bytes - sink.from,
        sink,
        signal: controller.signal,
      }
      service.readRange(request).then(
        () => {
          controllers.delete(controller)
          settle(resolve)
        },
        (error) => {
          controllers.delete(controller)
          sink.detach()
          const isLoser = isSpillwayError(error) && error.code === 'EINTR'
          if (firstError === undefined || !isLoser) firstError = error
          if (controllers.size === 0) settle(() => reject(firstError))
        },
      )
    }
    const watch = () => {
      const left = progressAt + hedging.thresholdMs(target.bytes) - nowMs()
      if (left > 0) hedgeTimer = startTimer(watch, Math.min(left, 2 ** 31 - 1))
      else if (hedging.tryHedge(target.bytes)) attempt()
    }
    if (signal.aborted) return reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    target.onProgress = (bytes) => {
      // As far as the rate goes: a body that trickles is slow, too.
      const worthMs = (bytes / service.limits.minDownloadBytesPerSecond) * 1000
      progressAt = Math.min(nowMs(), progressAt + worthMs)
      received(bytes)
    }
    hedging.requested(target.bytes)
    attempt()
    if (!retryMayFail && hedging.thresholdMs(target.bytes) !== Number.POSITIVE_INFINITY) watch()
  })
}
