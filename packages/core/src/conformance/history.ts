import assert from 'node:assert/strict'
import { isSpillwayError } from '../errors.ts'
import { seededRandom } from '../faults/random.ts'
import { yieldToEventLoop } from '../pace.ts'
import { handlesOf, type Subject, singles } from './subject.ts'

interface HeldPage {
  readonly handle: number
  readonly bytes: Uint8Array
}

/** Random calls beside a list of what the backup has to hold: the plainest oracle there is. */
export class History {
  readonly #subject: Subject
  readonly #random: () => number
  #held: HeldPage[] = []
  #nextSeed = 1

  constructor(subject: Subject, seed: number) {
    this.#subject = subject
    this.#random = seededRandom(seed ^ 0x51ab)
  }

  async step(): Promise<void> {
    const dice = this.#random()
    if (dice < 0.45) await this.#backUp()
    else if (dice < 0.75) await this.#copy()
    else await this.#drop()
    assert.equal(this.#subject.backup.stats().livePages, this.#held.length, 'live pages')
  }

  /** Everything that is held is still what it was; then all of it is dropped. */
  async finish(): Promise<void> {
    for (const { handle, bytes } of this.#held) await this.#subject.assertHolds(singles([handle]), bytes)
    await this.#subject.backup.drop(singles(this.#held.map(({ handle }) => handle)))
    assert.equal(this.#subject.backup.stats().livePages, 0)
  }

  async #backUp(): Promise<void> {
    const pages = Array.from({ length: 1 + this.#below(6) }, () => this.#subject.pattern(1, this.#nextSeed++))
    const spans = this.#join(pages)
    const { signal, done } = this.#maybeAbort()
    const result = await this.#subject.backup.backupPages(spans, { signal, writeback: this.#below(4) === 0 })
    done()
    const handles = handlesOf(result.handles)
    assert.equal(
      result.error === undefined,
      handles.length === pages.length,
      'an error exactly when pages are missing',
    )
    for (const [index, handle] of handles.entries()) {
      assert.ok(
        this.#held.every((page) => page.handle !== handle),
        `handle ${handle} is live already`,
      )
      this.#held.push({ handle, bytes: pages[index] })
    }
  }

  async #copy(): Promise<void> {
    const chosen = this.#choose()
    if (chosen.length === 0) return
    const into = this.#subject.dirty(chosen.length)
    const { signal, done } = this.#maybeAbort()
    const handles = singles(chosen.map(({ handle }) => handle))
    const { copied, error } = await this.#subject.backup.copyPages(handles, [into], { signal })
    done()
    assert.equal(error === undefined, copied === chosen.length, 'an error exactly when pages are missing')
    const { pageSizeBytes } = this.#subject
    for (const [index, page] of chosen.slice(0, copied).entries()) {
      const copy = into.subarray(index * pageSizeBytes, (index + 1) * pageSizeBytes)
      this.#subject.assertBytes(copy, page.bytes, `handle ${page.handle}, page`)
    }
  }

  async #drop(): Promise<void> {
    const chosen = new Set(this.#choose())
    try {
      await this.#subject.backup.drop(singles([...chosen].map(({ handle }) => handle)))
    } catch (error) {
      // Only what was injected may stop a drop of live pages, and then all of them are still there.
      if (!isSpillwayError(error) || error.code === 'ESTALE') throw error
      return
    }
    this.#held = this.#held.filter((page) => !chosen.has(page))
  }

  /** Up to eight of the held pages, in random order. */
  #choose(): HeldPage[] {
    const rest = [...this.#held]
    return Array.from(
      { length: Math.min(rest.length, 1 + this.#below(8)) },
      () => rest.splice(this.#below(rest.length), 1)[0],
    )
  }

  /** Pages as spans of random length. */
  #join(pages: readonly Uint8Array[]): Uint8Array[] {
    const { pageSizeBytes } = this.#subject
    const spans: Uint8Array[] = []
    for (let first = 0; first < pages.length; ) {
      const count = 1 + this.#below(pages.length - first)
      const span = new Uint8Array(count * pageSizeBytes)
      for (let page = 0; page < count; page++) span.set(pages[first + page], page * pageSizeBytes)
      spans.push(span)
      first += count
    }
    return spans
  }

  /** Now and then a signal that is aborted while the call is on its way. */
  #maybeAbort(): { signal: AbortSignal | undefined; done: () => void } {
    const dice = this.#below(6)
    if (dice > 1) return { signal: undefined, done: () => {} }
    const controller = new AbortController()
    if (dice === 0) void yieldToEventLoop().then(() => controller.abort())
    return { signal: controller.signal, done: () => controller.abort() }
  }

  #below(end: number): number {
    return Math.floor(this.#random() * end)
  }
}
