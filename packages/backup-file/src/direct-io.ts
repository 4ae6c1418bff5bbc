import { SpillwayError } from '@spillway/core'
import type { Files } from './file-system.ts'
import { messageOf, type NativeModule } from './native.ts'
import type { OpenedFile } from './opened-file.ts'
import { alignedMemory } from './staging.ts'

export interface DirectOptions {
  readonly wanted: 'auto' | boolean
  /** Where a page may be tried: beyond all that the file holds, in a file that is not the caller's. */
  readonly tryOffsetBytes: number
  readonly pageSizeBytes: number
  /** Whether the file system lies in memory. */
  readonly isInMemory: boolean
  readonly native: NativeModule['native']
}

/**
 * The descriptor that pages travel through, and whether it bypasses the page cache: with direct I/O switched on for the opening itself where
 * that is ours and native code is there, else with a second opening. Some file systems take one direct request and refuse the next: then it
 * goes on through the page cache.
 */
export class DataDescriptor {
  readonly #files: Files
  readonly #file: OpenedFile
  readonly #mayFallBack: boolean
  readonly #native: NativeModule['native']
  #reopened: number | undefined
  #direct = false
  #reason: string

  private constructor(files: Files, file: OpenedFile, options: DirectOptions, reason: string) {
    this.#files = files
    this.#file = file
    this.#mayFallBack = options.wanted === 'auto'
    this.#native = options.native
    this.#reason = reason
  }

  /**
   * Tries direct I/O where it is wanted: one aligned page is written where nothing is, read back and cut off again. `direct: true` rejects
   * with `EINVAL` where it does not work; `'auto'` goes on through the page cache.
   */
  static async open(files: Files, file: OpenedFile, options: DirectOptions): Promise<DataDescriptor> {
    const opened = new DataDescriptor(files, file, options, 'direct: false')
    if (options.wanted === false) return opened
    opened.#reason = whyNever(files, file, options) ?? (await opened.#try(options))
    if (options.wanted === true && !opened.#direct) {
      throw new SpillwayError('EINVAL', `direct I/O does not work on this file: ${opened.#reason}`)
    }
    return opened
  }

  get fileDescriptor(): number {
    return this.#direct && this.#reopened !== undefined ? this.#reopened : this.#file.fileDescriptor
  }

  get direct(): boolean {
    return this.#direct
  }

  /** Why it does or does not. */
  get reason(): string {
    return this.#reason
  }

  /** Goes on through the page cache after a direct request was refused; false where only direct I/O will do. */
  fallBack(failure: unknown): boolean {
    if (!this.#mayFallBack) return false
    if (!this.#direct) return true
    if (this.#reopened === undefined) this.#native!.setDirect(this.#file.fileDescriptor, false)
    this.#direct = false
    this.#reason = `it worked at first, then a direct request was refused: ${messageOf(failure)}`
    return true
  }

  async close(): Promise<void> {
    if (this.#reopened !== undefined) await this.#files.close(this.#reopened)
  }

  /** Switches direct I/O on and tries it; returns the reason for what it is then. */
  async #try(options: DirectOptions): Promise<string> {
    const { fileDescriptor, isOwnOpening, mayReopen } = this.#file
    const switches = isOwnOpening && this.#native !== undefined
    try {
      if (switches) {
        this.#native!.setDirect(fileDescriptor, true)
      } else {
        if (!mayReopen)
          return 'a removed file of this file system would come back if it were opened again for it'
        const flags = this.#files.flag('O_RDWR') | this.#files.flag('O_DIRECT')
        this.#reopened = await this.#files.open(`/proc/self/fd/${fileDescriptor}`, flags)
      }
      this.#direct = true
      await this.#tryPage(options)
      return 'tried on this file'
    } catch (failure) {
      this.#direct = false
      if (switches) {
        this.#native!.setDirect(fileDescriptor, false)
      } else if (this.#reopened !== undefined) {
        await this.#files.close(this.#reopened)
        this.#reopened = undefined
      }
      return messageOf(failure)
    }
  }

  async #tryPage({ pageSizeBytes, tryOffsetBytes, native }: DirectOptions): Promise<void> {
    const files = this.#files
    const { size } = await files.fstat(this.fileDescriptor)
    const page = alignedMemory(pageSizeBytes)
    page.fill(0xd1)
    try {
      const written = await files.write(this.fileDescriptor, page, tryOffsetBytes)
      page.fill(0)
      const read = await files.read(this.fileDescriptor, page, tryOffsetBytes)
      if (written !== pageSizeBytes || read !== pageSizeBytes || page.some((byte) => byte !== 0xd1)) {
        throw new Error('a page written directly did not come back')
      }
      if (isCached(native, this.fileDescriptor, tryOffsetBytes, pageSizeBytes)) {
        throw new Error('the file system takes direct requests and uses the page cache all the same')
      }
    } finally {
      if (this.#file.device === undefined) await files.ftruncate(this.fileDescriptor, size)
    }
  }
}

/** Why direct I/O is out of the question, without trying. */
function whyNever(files: Files, file: OpenedFile, options: DirectOptions): string | undefined {
  if (!files.isSystem) return 'the file system is injected'
  if (process.platform !== 'linux' || files.flag('O_DIRECT') === 0) {
    return 'this platform has no O_DIRECT, or no /proc to open the file again with'
  }
  if (options.isInMemory) return 'the file system lies in memory: its page cache is where the pages are kept'
  if (file.device !== undefined && options.pageSizeBytes % file.device.logicalBlockBytes !== 0) {
    return `the device has blocks of ${file.device.logicalBlockBytes} bytes`
  }
  return whyNotAligned(options.native, file.fileDescriptor, options.pageSizeBytes)
}

/** What the kernel says of direct I/O on this file: some file systems take the requests and use the page cache. */
function whyNotAligned(
  native: NativeModule['native'],
  fileDescriptor: number,
  pageSizeBytes: number,
): string | undefined {
  if (native === undefined) return undefined
  try {
    const { isKnown, memoryBytes, offsetBytes } = native.directAlignment(fileDescriptor)
    if (!isKnown) return undefined
    if (offsetBytes === 0)
      return 'the file system says that it uses the page cache for this file (STATX_DIOALIGN)'
    if (pageSizeBytes % offsetBytes !== 0)
      return `direct requests have to be multiples of ${offsetBytes} bytes`
    return memoryBytes > alignmentBytes ? `memory has to lie on multiples of ${memoryBytes} bytes` : undefined
  } catch {
    return undefined
  }
}

const alignmentBytes = 4096

function isCached(
  native: NativeModule['native'],
  fileDescriptor: number,
  offsetBytes: number,
  lengthBytes: number,
): boolean {
  try {
    return native !== undefined && native.cachedBytes(fileDescriptor, offsetBytes, lengthBytes) > 0
  } catch {
    return false
  }
}
