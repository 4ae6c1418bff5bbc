import { writeSync } from 'node:fs'
import { tableEntryBytes } from './layout.ts'

/**
 * The owner's side of the table that tells attached processes which handle is live in which slot:
 *
 *   owner      bytes into slot ─▶ handle into table      …      0 into table ─▶ slot may be reused
 *   attached   handle still in table? ─▶ bytes out of slot ─▶ handle still in table? ─▶ good
 *
 * Written with system calls even where the pages are mapped: a full memory is an error then and not SIGBUS, and the
 * calls keep the order of the steps above on every processor.
 */
export class HandleTable {
  readonly #fd: number
  readonly #offsetBytes: number
  #entries = new Float64Array(512)

  constructor(fd: number, offsetBytes: number) {
    this.#fd = fd
    this.#offsetBytes = offsetBytes
  }

  get metadataBytes(): number {
    return this.#entries.byteLength
  }

  /** Names the pages in these slots; throws the system's `ENOSPC`. */
  publish(firstHandle: number, slot: number, count: number): void {
    const entries = this.#scratch(count)
    for (let index = 0; index < count; index++) entries[index] = firstHandle + index
    this.#write(entries, slot, count)
  }

  /** Says that there is no page in these slots. */
  withdraw(slot: number, count: number): void {
    this.#write(this.#scratch(count).fill(0), slot, count)
  }

  #scratch(count: number): Float64Array {
    if (this.#entries.length < count) this.#entries = new Float64Array(count)
    return this.#entries
  }

  #write(entries: Float64Array, slot: number, count: number): void {
    const bytes = new Uint8Array(entries.buffer, 0, count * tableEntryBytes)
    const offsetBytes = this.#offsetBytes + slot * tableEntryBytes
    for (let done = 0; done < bytes.byteLength; ) {
      done += writeSync(this.#fd, bytes, done, bytes.byteLength - done, offsetBytes + done)
    }
  }
}
