import { setImmediate as nextTurn } from 'node:timers/promises'
import { type PagedBuffer, Pool } from '@spillway/pool'
import { chooseBackend, loadModules } from '../backends.ts'
import { LoopDelayMeter } from '../case/loop-delay.ts'
import { Random } from '../random.ts'
import { mebibyte } from '../sizes.ts'
import { Pattern } from './pattern.ts'
import type { LargeFindings, LargeMessage, LargeOrder, LargePhase } from './protocol.ts'

/** What is written and verified at once, and the longest random read. */
export const pieceBytes = mebibyte
const longestReadBytes = 256 * 1024
const readers = 4
/** One random read for so many bytes of the buffer: as many as there are chunks. */
const bytesPerRead = 2 * mebibyte
/** Bytes that a rehearsal makes and compares. */
const rehearsedBytes = 64 * mebibyte
/** How long one turn of the event loop may belong to the bench itself. */
const turnMs = 1

export interface LargeVoice {
  tell(message: LargeMessage): void
  /** Resolves when the parent has taken a measurement for which this process must hold still. */
  held(): Promise<void>
}

/**
 * One buffer, many times larger than the limit, in a process of its own:
 *
 *   baseline ── write all ── read ranges at random, four at a time ── read all ── end
 *
 * Every byte that is read is compared with what it must be. Half of the random ranges are copied out, half are pinned.
 */
export async function runLarge(order: LargeOrder, voice: LargeVoice): Promise<LargeFindings> {
  const run = new LargeRun(order, voice)
  const { description, settings } = chooseBackend(order.backend)
  await loadModules(description)
  await run.rehearse()
  voice.tell({ type: 'baseline' })
  await voice.held()
  await using backup = await description.open({
    capacityBytes: order.sizeBytes + order.limitBytes + 64 * mebibyte,
    pageSizeBytes: 4096,
    directory: order.directory,
    io: 'auto',
    checksums: true,
    warmBytes: 64 * mebibyte,
    ...settings,
  })
  await using pool = new Pool({ limitBytes: order.limitBytes, backup })
  const buffer = await pool.allocate(order.sizeBytes, { label: 'large' })
  return await run.on(pool, buffer)
}

class LargeRun {
  readonly #order: LargeOrder
  readonly #voice: LargeVoice
  readonly #pattern: Pattern
  readonly #piece = new Uint8Array(pieceBytes)
  readonly #targets = Array.from({ length: readers }, () => new Uint8Array(longestReadBytes))
  readonly #loopDelay = new LoopDelayMeter()
  readonly #seconds: Record<LargePhase, number> = { write: 0, random: 0, verify: 0 }
  #verifiedBytes = 0
  #wrongBytes = 0
  #randomReads = 0
  #lastProgressMs = 0
  #turnStartMs = 0

  constructor(order: LargeOrder, voice: LargeVoice) {
    this.#order = order
    this.#voice = voice
    this.#pattern = new Pattern(order.seed, pieceBytes)
    for (const target of this.#targets) target.fill(1)
  }

  /** Makes and compares content without a pool, so that what the bench needs for that (code, heap) is there by then. */
  async rehearse(): Promise<void> {
    for (let position = 0; position < rehearsedBytes; position += pieceBytes) {
      this.#pattern.write(position, this.#piece)
      this.#wrongBytes += this.#pattern.countWrong(position, this.#piece)
      await this.#turn()
    }
  }

  async on(pool: Pool, buffer: PagedBuffer): Promise<LargeFindings> {
    this.#loopDelay.start()
    await this.#timed('write', () => this.#write(buffer))
    await this.#timed('random', () => this.#readAtRandom(buffer))
    await this.#timed('verify', () => this.#verify(buffer))
    this.#loopDelay.stop()
    this.#voice.tell({ type: 'end' })
    await this.#voice.held()
    return {
      verifiedBytes: this.#verifiedBytes,
      wrongBytes: this.#wrongBytes,
      randomReads: this.#randomReads,
      secondsByPhase: this.#seconds,
      eventLoopDelayP99Ms: this.#loopDelay.histogram.quantileMs(0.99),
      eventLoopDelayMaxMs: this.#loopDelay.histogram.quantileMs(1),
      poolStats: pool.stats(),
    }
  }

  async #timed(phase: LargePhase, work: () => Promise<void>): Promise<void> {
    const startMs = performance.now()
    await work()
    this.#seconds[phase] = (performance.now() - startMs) / 1000
  }

  async #write(buffer: PagedBuffer): Promise<void> {
    for (let position = 0; position < buffer.sizeBytes; position += pieceBytes) {
      this.#pattern.write(position, this.#piece)
      await buffer.write(position, this.#piece)
      const turn = this.#progress('write', position)
      if (turn !== undefined) await turn
    }
  }

  async #verify(buffer: PagedBuffer): Promise<void> {
    for (let position = 0; position < buffer.sizeBytes; position += pieceBytes) {
      await buffer.read(position, this.#piece)
      this.#wrongBytes += this.#pattern.countWrong(position, this.#piece)
      this.#verifiedBytes += pieceBytes
      const turn = this.#progress('verify', position)
      if (turn !== undefined) await turn
    }
  }

  async #readAtRandom(buffer: PagedBuffer): Promise<void> {
    const random = new Random(this.#order.seed)
    const reads = buffer.sizeBytes / bytesPerRead
    await Promise.all(
      this.#targets.map(async (target) => {
        while (this.#randomReads < reads) {
          const copies = this.#randomReads++ % 2 === 0
          const length = 1 + random.below(longestReadBytes)
          const offset = random.below(buffer.sizeBytes - length)
          if (copies) await this.#copyAndCheck(buffer, offset, target.subarray(0, length))
          else await this.#pinAndCheck(buffer, offset, length)
          const turn = this.#progress('random', this.#randomReads * bytesPerRead)
          if (turn !== undefined) await turn
        }
      }),
    )
  }

  async #copyAndCheck(buffer: PagedBuffer, offset: number, into: Uint8Array): Promise<void> {
    await buffer.read(offset, into)
    this.#wrongBytes += this.#pattern.countWrong(offset, into)
  }

  async #pinAndCheck(buffer: PagedBuffer, offset: number, length: number): Promise<void> {
    using pin = await buffer.pin({ offset, length })
    let position = offset
    for (const span of pin.spans) {
      this.#wrongBytes += this.#pattern.countWrong(position, span)
      position += span.byteLength
    }
  }

  /** Undefined, or what to await before going on. */
  #progress(phase: LargePhase, doneBytes: number): Promise<void> | undefined {
    const now = performance.now()
    if (now - this.#lastProgressMs >= 100) {
      this.#lastProgressMs = now
      this.#voice.tell({ type: 'progress', phase, doneBytes })
    }
    return now - this.#turnStartMs > turnMs ? this.#turn() : undefined
  }

  /** What is resident settles in microtasks: without a turn now and then the loop would starve, and measure only us. */
  async #turn(): Promise<void> {
    await nextTurn()
    this.#turnStartMs = performance.now()
  }
}
