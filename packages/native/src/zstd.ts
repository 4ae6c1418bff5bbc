import { missing } from './errors.ts'
import { libcFor } from './libc.ts'

/** The functions of libzstd that are used, with addresses as numbers. Those that return bytes return an error's number below zero. */
interface LibZstd {
  newCompressor(): number
  freeCompressor(context: number): number
  compress(
    context: number,
    target: Uint8Array,
    targetBytes: number,
    source: Uint8Array,
    sourceBytes: number,
    level: number,
  ): number
  newDecompressor(): number
  freeDecompressor(context: number): number
  decompress(
    context: number,
    target: Uint8Array,
    targetBytes: number,
    source: Uint8Array,
    sourceBytes: number,
  ): number
}

/** ZSTD_error_dstSize_tooSmall, below zero as functions return it; zstd_errors.h keeps its numbers. */
const targetTooSmall = -70
/** Far more than anybody should do in one call that does not wait. */
const maxMessageBytes = 2 ** 30

let libZstd: LibZstd | undefined
let reasonMissing: string | undefined

/**
 * Zstandard by the libzstd that the running program exports, as Node does from 22.15 on, with contexts that are kept: a fraction of what `node:zlib`
 * takes for 64 KiB, and no garbage. Calls are synchronous. Elsewhere `create` throws `ENOSYS`.
 */
export class Zstd implements Disposable {
  readonly #library: LibZstd
  readonly #level: number
  #compressor = 0
  #decompressor = 0

  /** With a level of 1 to 19. Throws `ENOSYS` where there is no libzstd to call, `ENOMEM` where there is no memory for its contexts. */
  static create(level = 1): Zstd {
    if (!Number.isInteger(level) || level < 1 || level > 19) {
      throw new RangeError(`level is ${String(level)}; it must be an integer, 1 to 19`)
    }
    return new Zstd(theLibrary(), level)
  }

  /** Throws unless the functions compress a message, read it again, and say what has no room. @internal */
  static assertRoundTrip(library: LibZstd): void {
    using zstd = new Zstd(library, 1)
    const message = Uint8Array.from({ length: 1000 }, (_, index) => (index % 10) + (index >> 8))
    const [packed, unpacked] = [new Uint8Array(message.byteLength), new Uint8Array(message.byteLength)]
    const bytes = zstd.compress(message, packed)
    const isSame =
      bytes > 0 &&
      bytes < message.byteLength &&
      zstd.decompress(packed.subarray(0, bytes), unpacked) === message.byteLength &&
      unpacked.every((byte, index) => byte === message[index]) &&
      zstd.compress(message, packed.subarray(0, bytes - 1)) === 0
    if (!isSame) throw new Error('it does not read what it has compressed')
  }

  private constructor(library: LibZstd, level: number) {
    this.#library = library
    this.#level = level
    this.#compressor = library.newCompressor()
    this.#decompressor = library.newDecompressor()
    if (this.#compressor !== 0 && this.#decompressor !== 0) return
    this.close()
    throw Object.assign(new Error('ENOMEM: no memory for contexts of libzstd'), { code: 'ENOMEM' })
  }

  /** Compresses all of `source` into `target`: how many bytes it wrote, or 0 where they do not fit. */
  compress(source: Uint8Array, target: Uint8Array): number {
    this.#assertOpen()
    assertMessage(source, target)
    const { compress } = this.#library
    const bytes = compress(
      this.#compressor,
      target,
      target.byteLength,
      source,
      source.byteLength,
      this.#level,
    )
    if (bytes === targetTooSmall) return 0
    if (bytes < 0) throw failed('compress', bytes)
    return bytes
  }

  /** Makes of one frame what it was made of, and returns how many bytes that are. Throws `EIO` where it is none, or has no room. */
  decompress(source: Uint8Array, target: Uint8Array): number {
    this.#assertOpen()
    assertMessage(source, target)
    const { decompress } = this.#library
    const bytes = decompress(this.#decompressor, target, target.byteLength, source, source.byteLength)
    if (bytes < 0) throw failed('decompress', bytes)
    return bytes
  }

  /** Frees the contexts. Idempotent. */
  close(): void {
    if (this.#compressor !== 0) this.#library.freeCompressor(this.#compressor)
    if (this.#decompressor !== 0) this.#library.freeDecompressor(this.#decompressor)
    this.#compressor = 0
    this.#decompressor = 0
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #assertOpen(): void {
    if (this.#compressor === 0)
      throw Object.assign(new Error('EBADF: the contexts are closed'), { code: 'EBADF' })
  }
}

function assertMessage(source: Uint8Array, target: Uint8Array): void {
  if (!(source instanceof Uint8Array && target instanceof Uint8Array)) {
    throw new TypeError('source and target must be Uint8Arrays')
  }
  for (const { byteLength } of [source, target]) {
    if (byteLength >= 1 && byteLength <= maxMessageBytes) continue
    throw new RangeError(
      `source and target have ${source.byteLength} and ${target.byteLength} bytes; they must have 1 to 2^30`,
    )
  }
}

function failed(what: string, result: number): Error {
  return Object.assign(new Error(`EIO: libzstd cannot ${what}: error ${-result}`), { code: 'EIO' })
}

/** Bound once, and only used where it reads what it has compressed. */
function theLibrary(): LibZstd {
  const { bind } = libcFor('ZSTD_compressCCtx')
  if (reasonMissing !== undefined) throw missing('ZSTD_compressCCtx', reasonMissing)
  if (libZstd !== undefined) return libZstd
  try {
    const bound = bindLibrary(bind)
    Zstd.assertRoundTrip(bound)
    libZstd = bound
    return bound
  } catch (failure) {
    reasonMissing = `this program exports no libzstd: ${failure instanceof Error ? failure.message : String(failure)}`
    throw missing('ZSTD_compressCCtx', reasonMissing)
  }
}

function bindLibrary(bind: <Call>(definition: string) => Call): LibZstd {
  const memory = 'uint8_t*, size_t, const uint8_t*, size_t'
  return {
    newCompressor: bind('uintptr_t ZSTD_createCCtx()'),
    freeCompressor: bind('size_t ZSTD_freeCCtx(uintptr_t)'),
    compress: bind(`intptr_t ZSTD_compressCCtx(uintptr_t, ${memory}, int)`),
    newDecompressor: bind('uintptr_t ZSTD_createDCtx()'),
    freeDecompressor: bind('size_t ZSTD_freeDCtx(uintptr_t)'),
    decompress: bind(`intptr_t ZSTD_decompressDCtx(uintptr_t, ${memory})`),
  }
}
