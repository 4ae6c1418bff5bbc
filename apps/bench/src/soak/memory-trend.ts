import { readStatus } from '../case/memory-samples.ts'
import { mebibyte } from '../sizes.ts'

/** Growth that is noise: code, heap and arenas settle late. */
const allowedGrowthBytes = 16 * mebibyte
const keptSamples = 2000
/**
 * Shorter runs end before memory has settled: code is compiled, heaps and arenas grow for the first two to three minutes, and
 * a quarter of a shorter run lies within them. Nothing can be said of those.
 */
const leastJudgedMs = 240_000

/** Whether the memory of this process stays what it is. */
export interface MemoryTrend {
  readonly samples: number
  readonly peakBytes: number
  /** Least squares over the second half of the time. */
  readonly slopeBytesPerHour: number
  /** Floor of the last quarter of the time less that of the quarter before the half. */
  readonly grownBytes: number
  /** `null` when the run was too short to tell. */
  readonly flat: boolean | null
}

/** Samples ordinary memory of this process: shared memory is the store's. */
export class MemoryTrendWatcher implements Disposable {
  readonly #nowMs: () => number
  readonly #startMs: number
  readonly #timer: NodeJS.Timeout
  #samples: [seconds: number, bytes: number][] = []
  #everyMs = 100
  #lastMs = 0
  #peakBytes = 0

  /** @param nowMs tells the time, for tests */
  constructor(nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs
    this.#startMs = nowMs()
    this.#timer = setInterval(() => this.#sample(), this.#everyMs)
    this.#timer.unref()
  }

  trend(): MemoryTrend {
    const points = this.#samples
    const quarter = (from: number) =>
      points.slice((points.length * from) / 4, (points.length * (from + 1)) / 4).map(([, bytes]) => bytes)
    const [before, after] = [floorOf(quarter(1)), floorOf(quarter(3))]
    return {
      samples: points.length,
      peakBytes: this.#peakBytes,
      slopeBytesPerHour: slopeOf(points.slice(points.length / 2)) * 3600,
      grownBytes: after - before,
      flat: this.#nowMs() - this.#startMs < leastJudgedMs ? null : after - before <= allowedGrowthBytes,
    }
  }

  #sample(): void {
    const now = this.#nowMs()
    const status = readStatus(process.pid)
    const bytes = status === undefined ? process.memoryUsage.rss() : status.anonymousBytes + status.fileBytes
    this.#peakBytes = Math.max(this.#peakBytes, bytes)
    if (now - this.#lastMs < this.#everyMs * 0.9) return
    this.#lastMs = now
    this.#samples.push([now / 1000, bytes])
    if (this.#samples.length < keptSamples) return
    this.#samples = this.#samples.filter((_, index) => index % 2 === 0)
    this.#everyMs *= 2
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }
}

/**
 * What memory falls back to: a tenth of the samples are lower. Between two garbage collections there may be any amount on top of it;
 * what is kept for ever raises the floor.
 */
export function floorOf(samples: readonly number[]): number {
  return samples.toSorted((left, right) => left - right)[Math.floor(samples.length / 10)] ?? 0
}

/** Slope of the line through points, by least squares; 0 for fewer than two. */
export function slopeOf(points: readonly (readonly [number, number])[]): number {
  if (points.length < 2) return 0
  const mean = (axis: 0 | 1) => points.reduce((sum, point) => sum + point[axis], 0) / points.length
  const [meanX, meanY] = [mean(0), mean(1)]
  let above = 0
  let below = 0
  for (const [x, y] of points) {
    above += (x - meanX) * (y - meanY)
    below += (x - meanX) ** 2
  }
  return below === 0 ? 0 : above / below
}
