import { readFileSync, writeFileSync } from 'node:fs'

/** Resident memory of a process at one moment, by kind. */
export interface MemorySample {
  /** Milliseconds since the case began. */
  readonly ms: number
  /** Ordinary memory and mapped files: what a limit on a pool can mean. */
  readonly residentBytes: number
  /** Shared memory mapped into the process: the store of a shared-memory backup. */
  readonly sharedBytes: number
}

const sampleEveryMs = 10
const keptSamples = 400

/**
 * Watches the resident memory of another process from outside, every 10 ms, so that a busy event loop in there hides
 * nothing. Keeps a bounded number of samples, always with the peaks. On systems without /proc it has nothing to say.
 */
export class MemoryWatcher implements Disposable {
  readonly #processId: number
  readonly #startMs = performance.now()
  readonly #timer: NodeJS.Timeout
  #samples: MemorySample[] = []
  #keepEveryMs = sampleEveryMs
  #baseline: MemorySample | undefined
  #peak: MemorySample | undefined
  #peakSharedBytes = 0
  #sampleCount = 0

  constructor(processId: number) {
    this.#processId = processId
    this.#timer = setInterval(() => this.sample(), sampleEveryMs)
  }

  get elapsedMs(): number {
    return performance.now() - this.#startMs
  }

  /** Takes a sample now; `undefined` when the process is gone or the system does not tell. */
  sample(): MemorySample | undefined {
    const status = readStatus(this.#processId)
    if (status === undefined) return undefined
    const sample: MemorySample = {
      ms: Math.round(this.elapsedMs),
      residentBytes: status.anonymousBytes + status.fileBytes,
      sharedBytes: status.sharedBytes,
    }
    this.#sampleCount++
    if (this.#peak === undefined || sample.residentBytes > this.#peak.residentBytes) this.#peak = sample
    if (sample.sharedBytes > this.#peakSharedBytes) this.#peakSharedBytes = sample.sharedBytes
    this.#keep(sample)
    return sample
  }

  /** The process has loaded everything of its own and nothing of the pool: from here on the peak counts. */
  markBaseline(): void {
    // Resets the high-water mark, where the kernel lets us.
    try {
      writeFileSync(`/proc/${this.#processId}/clear_refs`, '5')
    } catch {
      // The samples still tell.
    }
    this.#peak = undefined
    this.#baseline = this.sample()
  }

  get baselineBytes(): number {
    return this.#baseline?.residentBytes ?? 0
  }

  /** The greatest of the samples; where no shared memory blurs it, the kernel's own high-water mark, which misses nothing. */
  get peakBytes(): number {
    const sampled = this.#peak?.residentBytes ?? 0
    return this.#peakSharedBytes > 1024 * 1024 ? sampled : Math.max(sampled, this.#highWaterBytes)
  }

  get peakSharedBytes(): number {
    return this.#peakSharedBytes
  }

  get sampleCount(): number {
    return this.#sampleCount
  }

  get samples(): readonly MemorySample[] {
    return this.#samples
  }

  #highWaterBytes = 0

  /** Must be called while the process still lives. */
  noteHighWater(): void {
    this.#highWaterBytes = readStatus(this.#processId)?.highWaterBytes ?? 0
  }

  #keep(sample: MemorySample): void {
    const last = this.#samples.at(-1)
    if (last !== undefined && sample.ms - last.ms < this.#keepEveryMs) {
      // Within one interval the higher one stays: a chart must not lose a peak.
      if (sample.residentBytes + sample.sharedBytes > last.residentBytes + last.sharedBytes) {
        this.#samples[this.#samples.length - 1] = { ...sample, ms: last.ms }
      }
      return
    }
    this.#samples.push(sample)
    if (this.#samples.length < keptSamples) return
    const thinned: MemorySample[] = []
    for (let index = 0; index + 1 < this.#samples.length; index += 2) {
      const [first, second] = [this.#samples[index], this.#samples[index + 1]]
      thinned.push(second.residentBytes > first.residentBytes ? { ...second, ms: first.ms } : first)
    }
    this.#samples = thinned
    this.#keepEveryMs *= 2
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }
}

interface ProcessStatus {
  readonly anonymousBytes: number
  readonly fileBytes: number
  readonly sharedBytes: number
  readonly highWaterBytes: number
}

export function readStatus(processId: number): ProcessStatus | undefined {
  let text: string
  try {
    text = readFileSync(`/proc/${processId}/status`, 'latin1')
  } catch {
    return undefined
  }
  const field = (name: string) => {
    const start = text.indexOf(`${name}:`)
    return start === -1 ? 0 : Number.parseInt(text.slice(start + name.length + 1), 10) * 1024
  }
  return {
    anonymousBytes: field('RssAnon'),
    fileBytes: field('RssFile'),
    sharedBytes: field('RssShmem'),
    highWaterBytes: field('VmHWM'),
  }
}
