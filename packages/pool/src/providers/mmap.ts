import { explainNativeImport, SpillwayError } from '@spillway/core'
import type { MemoryBlock, MemoryRequest, MemoryRun, PageProvider, ProviderCapabilities } from './provider.ts'

type Native = typeof import('@spillway/native')
type Mapping = import('@spillway/native').Mapping

const mebibyte = 1024 ** 2
const arenaBytes = 64 * mebibyte
const hugePageBytes = 2 * mebibyte

interface MappedBlock extends MemoryBlock {
  readonly mapping: Mapping
  readonly offsetBytes: number
  readonly whole: boolean
}

/**
 * Memory mapped by the operating system, through `@spillway/native`: huge pages for whole chunks, page-exact give-back,
 * and memory that io_uring may touch.
 *
 * Blocks come from arenas, because making a view costs 45 µs: a block that was put back keeps its view and its place,
 * without memory behind it, until it is asked for again. Blocks that will be carved lie in arenas without huge pages:
 * there the first touch of one page must not bring in 511 others.
 */
export class MmapProvider implements PageProvider {
  readonly name = 'mmap'
  readonly capabilities: ProviderCapabilities = Object.freeze({
    swappable: true,
    movable: true,
    shareable: false,
    pageExactRelease: true,
  })
  readonly #idle = new Map<number, MappedBlock[]>()
  readonly #arenas = new Set<Mapping>()
  #native: Native | undefined

  async probe(): Promise<boolean> {
    let native: Native
    try {
      native = await import('@spillway/native')
    } catch (failure) {
      throw new SpillwayError('ENOSYS', explainNativeImport(failure).reason, { cause: failure })
    }
    if (!native.available().mmap) return false
    this.#native = native
    return true
  }

  get(_order: number, request: MemoryRequest): MemoryBlock | undefined {
    const key = arenaKey(request.lengthBytes, request.whole)
    let idle = this.#idle.get(key)
    if (idle === undefined) {
      idle = []
      this.#idle.set(key, idle)
    }
    if (idle.length === 0) this.#addArena(idle, request)
    return idle.pop()
  }

  put(block: MemoryBlock): void {
    const { mapping, offsetBytes, whole } = block as MappedBlock
    const lengthBytes = block.bytes.byteLength
    mapping.giveBack(offsetBytes, lengthBytes)
    this.#idle.get(arenaKey(lengthBytes, whole))?.push(block as MappedBlock)
  }

  release(run: MemoryRun): void {
    const { mapping, offsetBytes } = run.block as MappedBlock
    mapping.giveBack(offsetBytes + run.offsetBytes, run.lengthBytes)
  }

  close(): void {
    for (const arena of this.#arenas) arena.close()
    this.#arenas.clear()
    this.#idle.clear()
  }

  #addArena(idle: MappedBlock[], request: MemoryRequest): void {
    const native = this.#native
    if (native === undefined) throw new TypeError('the mmap provider is used before it was probed')
    const { lengthBytes, whole } = request
    const blockCount = Math.max(1, Math.floor(arenaBytes / lengthBytes))
    // One more huge page, so that the first block can begin on a huge page's boundary.
    // Smaller blocks come and go by themselves, and share a huge page with others.
    const hugePages = whole && lengthBytes >= hugePageBytes
    const mapping = tryMapping(native, blockCount * lengthBytes + hugePageBytes, hugePages)
    if (mapping === undefined) return
    this.#arenas.add(mapping)
    const address = native.mappedAddress(mapping.view(0, native.systemPageBytes()))
    const start =
      address === undefined ? 0 : (hugePageBytes - Number(address % BigInt(hugePageBytes))) % hugePageBytes
    for (let index = blockCount - 1; index >= 0; index--) {
      idle.push(new LazyBlock(mapping, start + index * lengthBytes, lengthBytes, whole))
    }
  }
}

/** Makes its view when it is first used: an arena of which only one block is needed costs one view. */
class LazyBlock implements MappedBlock {
  readonly mapping: Mapping
  readonly offsetBytes: number
  readonly whole: boolean
  readonly #lengthBytes: number
  #view: Uint8Array | undefined

  constructor(mapping: Mapping, offsetBytes: number, lengthBytes: number, whole: boolean) {
    this.mapping = mapping
    this.offsetBytes = offsetBytes
    this.whole = whole
    this.#lengthBytes = lengthBytes
  }

  get bytes(): Uint8Array {
    // Made anew when the application has detached the one that it was given.
    if (this.#view?.byteLength !== this.#lengthBytes)
      this.#view = this.mapping.view(this.offsetBytes, this.#lengthBytes)
    return this.#view
  }
}

function arenaKey(lengthBytes: number, whole: boolean): number {
  return whole ? lengthBytes : -lengthBytes
}

function tryMapping(native: Native, lengthBytes: number, hugePages: boolean): Mapping | undefined {
  try {
    return native.Mapping.anonymous(lengthBytes, { hugePages })
  } catch (failure) {
    if ((failure as { code?: string }).code === 'ENOMEM') return undefined
    throw failure
  }
}
