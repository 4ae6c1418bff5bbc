import assert from 'node:assert/strict'
import type { CopyResult, HandleRun } from '../contract.ts'
import { delay } from '../host/timers.ts'
import type { Subject } from './subject.ts'

/** Nothing that works needs so long; it ends tests of a backup that never calls `done`. */
const longestCopyMs = 30_000

/** A copy that was started, and what became of it. */
export class StartedCopy {
  /** What `startCopy` answered. */
  readonly began: boolean
  /** Whether `done` was called before `startCopy` returned. */
  readonly wasAtOnce: boolean
  readonly into: Uint8Array
  readonly #results: CopyResult[] = []
  #wake: (() => void) | undefined

  /** `onDone` runs inside of `done`. */
  constructor(subject: Subject, first: number, into: Uint8Array, onDone?: (result: CopyResult) => void) {
    const { backup } = subject
    assert.ok(backup.startCopy !== undefined, 'asked of a backup that starts copies')
    this.into = into
    this.began = backup.startCopy(first, into, (copied, error) => {
      const result = error === undefined ? { copied } : { copied, error }
      this.#results.push(result)
      this.#wake?.()
      onDone?.(result)
    })
    assert.equal(typeof this.began, 'boolean')
    this.wasAtOnce = this.#results.length > 0
    if (!this.began) assert.equal(this.#results.length, 0, 'a copy that was not begun is not told')
  }

  get calls(): number {
    return this.#results.length
  }

  /** Waits for `done`, and expects a prefix of `pages` pages with an error exactly when some are missing. */
  async result(pages: number): Promise<CopyResult> {
    assert.ok(this.began, 'only a copy that was begun has a result')
    const woken = new Promise<void>((resolve) => {
      this.#wake = resolve
    })
    if (this.#results.length === 0) await Promise.race([woken, delay(longestCopyMs, { unref: true })])
    assert.equal(this.#results.length, 1, 'done is called exactly once')
    const [result] = this.#results
    const { copied, error } = result
    assert.ok(Number.isInteger(copied) && copied >= 0 && copied <= pages, `${copied} of ${pages} pages`)
    assert.equal(error === undefined, copied === pages, 'an error exactly when pages are missing')
    return result
  }
}

/** Starts copies of a run; what is not begun is copied by `copyPages`, as a pool does it. */
export class CopyStarter {
  readonly #subject: Subject
  readonly #mustBegin: boolean

  constructor(subject: Subject, mustBegin: boolean) {
    this.#subject = subject
    this.#mustBegin = mustBegin
  }

  start(first: number, pages: number, onDone?: (result: CopyResult) => void): StartedCopy {
    const copy = new StartedCopy(this.#subject, first, this.#subject.landing(pages), onDone)
    if (this.#mustBegin) assert.ok(copy.began, `a copy of ${pages} live pages is begun`)
    return copy
  }

  /** Copies a run, and expects these bytes. */
  async assertHolds({ first, count }: HandleRun, expected: Uint8Array): Promise<void> {
    const copy = this.start(first, count)
    const { error } = copy.began
      ? await copy.result(count)
      : await this.#subject.backup.copyPages([{ first, count }], [copy.into])
    if (error !== undefined) throw error
    this.#subject.assertBytes(copy.into, expected, 'started copy, page')
  }
}
