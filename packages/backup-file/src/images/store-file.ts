import { createHash, hash } from 'node:crypto'
import { type HandleRun, SpillwayError } from '@spillway/core'

/** What images need of a file. All calls move all of the bytes or reject. */
export interface StoreFile {
  /** Fills `into`; what lies beyond the end of the file are zeros. */
  read(into: Uint8Array, offsetBytes: number): Promise<void>
  write(bytes: Uint8Array, offsetBytes: number): Promise<void>
  /** Makes all writes durable that were complete when it was called. */
  sync(): Promise<void>
  /** Rejects with `ESTALE` when nobody would find what is written now, as in a file whose name means another one. */
  assertUnchanged?(): Promise<void>
}

/**
 * Where things lie in a store:
 *
 *   0         4 KiB            1 MiB            2 MiB
 *   ├ header  ┼ root 0         ┼ root 1         ┼ slot 0 ┼ slot 1 ┼ …
 */
export interface StoreLayout {
  readonly rootOffsetsBytes: readonly [number, number]
  /** Most bytes of a root. */
  readonly rootBytes: number
  readonly dataOffsetBytes: number
  readonly pageSizeBytes: number
  /** Handles are `generation × slotRange + slot`. */
  readonly slotRange: number
}

export function slotOf(handle: number, { slotRange }: Pick<StoreLayout, 'slotRange'>): number {
  return handle - Math.floor(handle / slotRange) * slotRange
}

export function offsetOf(handle: number, layout: StoreLayout): number {
  return layout.dataOffsetBytes + slotOf(handle, layout) * layout.pageSizeBytes
}

export function handleCount(runs: readonly HandleRun[]): number {
  return runs.reduce((sum, { count }) => sum + count, 0)
}

export const sumBytes = 16

/** A checksum that nothing matches that another store wrote: each has a random key. */
export function keyedSum(key: Uint8Array, bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(key).update(bytes).digest().subarray(0, sumBytes)
}

/** A checksum by which a reference knows its block, wherever the block came from. */
export function blockSum(bytes: Uint8Array): Uint8Array {
  return hash('sha256', bytes, 'buffer').subarray(0, sumBytes)
}

export function isSameSum(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0
}

/**
 * The syncs of a store, one after the other. The first that fails is the last: the kernel reports a lost write once, and a later sync that
 * succeeds says nothing of the writes before. One at a time, so that none succeeds because another was told of the failure.
 */
export class StoreSync {
  readonly #backup: string
  readonly #file: StoreFile
  #last: Promise<unknown> = Promise.resolve()
  #failure: Error | undefined

  constructor(backup: string, file: StoreFile) {
    this.#backup = backup
    this.#file = file
  }

  get hasFailed(): boolean {
    return this.#failure !== undefined
  }

  /** Makes what was written durable. Rejects with `EIO` from the first failure on. */
  sync(): Promise<void> {
    return this.#inTurn(() => this.#file.sync())
  }

  /** Writes what a sync is to make durable, and syncs. A write that fails counts as a failed sync: part of it may be on its way. */
  async writeDurably(bytes: Uint8Array, offsetBytes: number): Promise<void> {
    await this.#inTurn(() => this.#file.write(bytes, offsetBytes))
    await this.sync()
  }

  /** Throws `EIO` when a sync has failed. */
  assertSound(): void {
    if (this.#failure === undefined) return
    const what = `a sync of backup ${this.#backup} has failed; what its images are is seen when it is opened again`
    throw new SpillwayError('EIO', what, { backup: this.#backup, cause: this.#failure })
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const result = this.#last.then(async () => {
      this.assertSound()
      try {
        await work()
      } catch (failure) {
        this.#failure = failure as Error
        this.assertSound()
      }
    })
    this.#last = result.catch(() => {})
    return result
  }
}
