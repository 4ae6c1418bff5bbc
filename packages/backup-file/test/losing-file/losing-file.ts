import { failure } from '../faulty-file-system.ts'
import { FileContent } from './file-content.ts'

/** What a crash may lose. */
export type Change =
  | { readonly kind: 'write'; readonly offsetBytes: number; readonly bytes: Uint8Array }
  | { readonly kind: 'punch'; readonly offsetBytes: number; readonly lengthBytes: number }
  | { readonly kind: 'truncate'; readonly lengthBytes: number }

export type LogEntry =
  | Change
  /** `covers` is what was complete when the sync began. One that failed has made none of it durable, and no later sync does. */
  | { readonly kind: 'sync'; readonly covers: readonly Change[]; readonly hasFailed: boolean }
  /** Something that the test has to know of this moment, such as that a call was acknowledged. */
  | { readonly kind: 'mark'; readonly value: unknown }

/** What becomes of a sync: `'ignored'` says that it worked, and does nothing. */
export type SyncFate = 'works' | 'fails' | 'ignored'

export interface LosingFileOptions {
  /** What the file has when it is opened, all of it durable. */
  readonly start?: FileContent
  /** Called for each sync with what it would make durable, in order. Default: all work. */
  readonly fateOfSync?: (pending: readonly Change[]) => SyncFate
}

/**
 * A file in memory that keeps a log of what was done to it, from which `crashStates` makes what a crash at each moment may leave. Reads
 * see all that was written, as through a page cache. A write is in the log when it begins, and is covered by syncs that begin after
 * its end.
 */
export class LosingFile {
  readonly start: FileContent
  readonly log: LogEntry[]
  readonly #live: FileContent
  readonly #fateOfSync: (pending: readonly Change[]) => SyncFate
  /** Complete, and not durable. */
  #pending: Change[] = []

  constructor({ start = new FileContent(), fateOfSync = () => 'works' }: LosingFileOptions = {}) {
    this.start = start
    this.log = []
    this.#live = start.copy()
    this.#fateOfSync = fateOfSync
  }

  /** What the process sees. */
  get live(): FileContent {
    return this.#live.copy()
  }

  /**
   * The file as the next process finds it when this one was killed after so many entries of the log and the machine runs on: all is
   * there, and what was not durable still is not.
   */
  killedAfter(entries: number, fateOfSync?: LosingFileOptions['fateOfSync']): LosingFile {
    const next = new LosingFile({ start: this.start, ...(fateOfSync && { fateOfSync }) })
    for (const entry of this.log.slice(0, entries)) {
      next.log.push(entry)
      if (entry.kind === 'sync') next.#cover(entry.covers)
      else if (entry.kind !== 'mark') {
        applyChange(next.#live, entry)
        next.#pending.push(entry)
      }
    }
    return next
  }

  /** Gives how many bytes there were. */
  async read(into: Uint8Array, offsetBytes: number): Promise<number> {
    await turn()
    return this.#live.read(into, offsetBytes)
  }

  write(bytes: Uint8Array, offsetBytes: number): Promise<void> {
    return this.#change({ kind: 'write', offsetBytes, bytes: bytes.slice() })
  }

  punch(offsetBytes: number, lengthBytes: number): Promise<void> {
    return this.#change({ kind: 'punch', offsetBytes, lengthBytes })
  }

  truncate(lengthBytes: number): Promise<void> {
    return this.#change({ kind: 'truncate', lengthBytes })
  }

  async sync(): Promise<void> {
    const covers = [...this.#pending]
    const fate = this.#fateOfSync(covers)
    await turn()
    if (fate === 'ignored') return
    const hasFailed = fate === 'fails'
    this.log.push({ kind: 'sync', covers, hasFailed })
    this.#cover(covers)
    if (hasFailed) throw failure('EIO')
  }

  mark(value: unknown): void {
    this.log.push({ kind: 'mark', value })
  }

  async #change(change: Change): Promise<void> {
    this.log.push(change)
    applyChange(this.#live, change)
    await turn()
    this.#pending.push(change)
  }

  #cover(covers: readonly Change[]): void {
    const covered = new Set(covers)
    this.#pending = this.#pending.filter((change) => !covered.has(change))
  }
}

export function applyChange(content: FileContent, change: Change): void {
  if (change.kind === 'write') content.write(change.bytes, change.offsetBytes)
  else if (change.kind === 'punch') content.punch(change.offsetBytes, change.lengthBytes)
  else content.truncate(change.lengthBytes)
}

function turn(): Promise<void> {
  return Promise.resolve()
}
