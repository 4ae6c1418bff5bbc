import { fstatSync } from 'node:fs'
import { allocate, Mapping, punchHole, systemPageBytes } from '@spillway/native'
import type { Medium } from './medium.ts'

/** A mapping is made and viewed once per segment: a view costs as much as copying half a megabyte. */
const segmentBytes = 64 * 1024 ** 2

/** Copies without a view of what is copied: a view for each page would be most of what reading one allocates. */
const copyBytes: (this: Uint8Array, to: Uint8Array, toStart: number, start: number, end: number) => number =
  Buffer.prototype.copy

interface Segment {
  readonly mapping: Mapping
  readonly bytes: Uint8Array
}

export interface MappedMediumOptions {
  readonly fd: number
  readonly kind: 'memfd' | 'tmpfs'
  /** Where the first page lies in the file; a multiple of 2 MiB or 0. */
  readonly dataOffsetBytes: number
  readonly lengthBytes: number
  /** Closes the descriptor, after all mappings are gone. */
  readonly closeFile: () => void
}

/** A file in memory that is mapped into the process: copies are `memcpy`. */
export class MappedMedium implements Medium {
  readonly kind: 'memfd' | 'tmpfs'
  readonly access = 'mapped'
  // Touching a page that the system cannot supply would be SIGBUS, the end of the process.
  readonly backsOnWrite = false
  readonly giveBackUnitBytes = systemPageBytes()
  readonly #fd: number
  readonly #dataOffsetBytes: number
  readonly #lengthBytes: number
  readonly #closeFile: () => void
  readonly #segments: (Segment | undefined)[] = []
  #populates = true
  #closed = false

  constructor(options: MappedMediumOptions) {
    this.kind = options.kind
    this.#fd = options.fd
    this.#dataOffsetBytes = options.dataOffsetBytes
    this.#lengthBytes = options.lengthBytes
    this.#closeFile = options.closeFile
  }

  heldBytes(): number {
    return this.#closed ? 0 : fstatSync(this.#fd).blocks * 512
  }

  back(offsetBytes: number, lengthBytes: number): void {
    const page = systemPageBytes()
    const start = offsetBytes - (offsetBytes % page)
    const end = Math.min(this.#lengthBytes, Math.ceil((offsetBytes + lengthBytes) / page) * page)
    this.#eachPart(start, end - start, (segment, segmentOffset, length, fileOffset) => {
      if (this.#populates) {
        // Making memory and mapping it in one step is the fastest way, and it fails with an error where a touch would
        // kill the process. But the error does not say what was lacking; allocating does.
        try {
          segment.mapping.populate(segmentOffset, length)
          return
        } catch (failure) {
          const code = (failure as { code?: unknown }).code
          if (code === 'ENOSYS' || code === 'EINVAL') this.#populates = false
        }
      }
      try {
        allocate(this.#fd, fileOffset, length)
      } catch (failure) {
        // Nobody would know of the part that was made.
        if (length > page) this.giveBack(fileOffset - this.#dataOffsetBytes, length)
        throw failure
      }
    })
  }

  write(offsetBytes: number, from: Uint8Array, fromBytes: number, lengthBytes: number): void {
    this.#eachPart(offsetBytes, lengthBytes, (segment, start, length, _fileOffset, done) => {
      segment.bytes.set(from.subarray(fromBytes + done, fromBytes + done + length), start)
    })
  }

  read(offsetBytes: number, into: Uint8Array, intoBytes: number, lengthBytes: number): void {
    const index = Math.floor(offsetBytes / segmentBytes)
    const start = offsetBytes - index * segmentBytes
    if (start + lengthBytes <= segmentBytes) {
      copyBytes.call(this.#segment(index).bytes, into, intoBytes, start, start + lengthBytes)
      return
    }
    this.#eachPart(offsetBytes, lengthBytes, (segment, partStart, length, _fileOffset, done) => {
      into.set(segment.bytes.subarray(partStart, partStart + length), intoBytes + done)
    })
  }

  giveBack(offsetBytes: number, lengthBytes: number): void {
    // The number of a closed descriptor may be another file's by now.
    if (this.#closed) return
    punchHole(this.#fd, this.#dataOffsetBytes + offsetBytes, lengthBytes)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    for (const segment of this.#segments) segment?.mapping.close()
    this.#segments.length = 0
    this.#closeFile()
  }

  #segment(index: number): Segment {
    const known = this.#segments[index]
    if (known !== undefined) return known
    const start = index * segmentBytes
    const lengthBytes = Math.min(segmentBytes, this.#lengthBytes - start)
    const mapping = Mapping.file(this.#fd, { lengthBytes, offsetBytes: this.#dataOffsetBytes + start })
    const segment = { mapping, bytes: mapping.view(0, lengthBytes) }
    this.#segments[index] = segment
    return segment
  }

  #eachPart(
    offsetBytes: number,
    lengthBytes: number,
    visit: (segment: Segment, start: number, length: number, fileOffset: number, done: number) => void,
  ): void {
    let done = 0
    while (done < lengthBytes) {
      const at = offsetBytes + done
      const index = Math.floor(at / segmentBytes)
      const start = at - index * segmentBytes
      const length = Math.min(lengthBytes - done, segmentBytes - start)
      visit(this.#segment(index), start, length, this.#dataOffsetBytes + at, done)
      done += length
    }
  }
}
