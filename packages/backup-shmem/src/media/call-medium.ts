import { fstatSync, ftruncateSync, readSync, writeSync } from 'node:fs'
import type { Medium } from './medium.ts'

export interface CallMediumOptions {
  /** Opens the file of the next segment. Called once per segment, when it is first written. */
  readonly openSegment: () => number
  /** Bytes in one file. A file is emptied when nothing in it is needed: `node:fs` cannot punch holes. */
  readonly segmentBytes: number
  /** Where the first page lies in a file. */
  readonly dataOffsetBytes: number
  readonly lengthBytes: number
  /** Closes the files that were opened. Called once. */
  readonly closeFiles: (fds: readonly number[]) => void
}

const zeros = new Uint8Array(256 * 1024)

/**
 * Files on a tmpfs, read and written by system calls: for machines where native code cannot be loaded. Synchronous
 * calls in slices were measured as fast as asynchronous ones and leave libuv's threads to the application.
 */
export class CallMedium implements Medium {
  readonly kind = 'tmpfs'
  readonly access = 'calls'
  readonly backsOnWrite = true
  readonly giveBackUnitBytes: number
  readonly #openSegment: () => number
  readonly #closeFiles: (fds: readonly number[]) => void
  readonly #dataOffsetBytes: number
  readonly #lengthBytes: number
  readonly #files: (number | undefined)[] = []
  #closed = false

  constructor(options: CallMediumOptions) {
    this.giveBackUnitBytes = options.segmentBytes
    this.#openSegment = options.openSegment
    this.#closeFiles = options.closeFiles
    this.#dataOffsetBytes = options.dataOffsetBytes
    this.#lengthBytes = options.lengthBytes
  }

  heldBytes(): number {
    let bytes = 0
    for (const fd of this.#files) if (fd !== undefined) bytes += fstatSync(fd).blocks * 512
    return bytes
  }

  back(offsetBytes: number, lengthBytes: number): void {
    for (let done = 0; done < lengthBytes; done += zeros.byteLength) {
      this.write(offsetBytes + done, zeros, 0, Math.min(zeros.byteLength, lengthBytes - done))
    }
  }

  write(offsetBytes: number, from: Uint8Array, fromBytes: number, lengthBytes: number): void {
    this.#transfer(writeSync, offsetBytes, from, fromBytes, lengthBytes)
  }

  read(offsetBytes: number, into: Uint8Array, intoBytes: number, lengthBytes: number): void {
    this.#transfer(readSync, offsetBytes, into, intoBytes, lengthBytes)
  }

  giveBack(offsetBytes: number, lengthBytes: number): void {
    // The number of a closed descriptor may be another file's by now.
    if (this.#closed) return
    for (let start = offsetBytes; start < offsetBytes + lengthBytes; start += this.giveBackUnitBytes) {
      const fd = this.#files[start / this.giveBackUnitBytes]
      if (fd === undefined) continue
      ftruncateSync(fd, this.#dataOffsetBytes)
      // A named file keeps its length: other processes check it.
      if (this.#dataOffsetBytes > 0) ftruncateSync(fd, this.#dataOffsetBytes + this.#lengthBytes)
    }
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#closeFiles(this.#files.splice(0).filter((fd) => fd !== undefined))
  }

  #file(index: number): number {
    const fd = this.#files[index] ?? this.#openSegment()
    this.#files[index] = fd
    return fd
  }

  #transfer(
    call: (fd: number, memory: Uint8Array, start: number, length: number, position: number) => number,
    offsetBytes: number,
    memory: Uint8Array,
    memoryBytes: number,
    lengthBytes: number,
  ): void {
    let done = 0
    while (done < lengthBytes) {
      const at = offsetBytes + done
      const index = Math.floor(at / this.giveBackUnitBytes)
      const start = at - index * this.giveBackUnitBytes
      const length = Math.min(lengthBytes - done, this.giveBackUnitBytes - start)
      const moved = call(this.#file(index), memory, memoryBytes + done, length, this.#dataOffsetBytes + start)
      if (moved === 0) throw new Error(`the file ends at ${start} bytes, where ${length} more were stored`)
      done += moved
    }
  }
}
