import type {
  Caching,
  MemoryBlock,
  MemoryRequest,
  MemoryRun,
  PageProvider,
  ProviderCapabilities,
} from '../../../src/index.ts'

/** Blocks by length that are out of use: ten thousands of providers come one after the other. */
const spare = new Map<number, MemoryBlock[]>()

export interface RecordingProviderOptions {
  /** Where the memory comes from. Default: memory of its own. */
  readonly inner?: PageProvider
  readonly pageSizeBytes?: number
  /** Of memory of its own. Default true. */
  readonly pageExactRelease?: boolean
}

/**
 * A provider that counts every page out and in again, and writes down what a pool must never do: put a block back twice or
 * while parts of it are mapped (I4), give memory up whose caching was not set back (I5), release what is not out (I2).
 * Each kind of request can be made to fail.
 */
export class RecordingProvider implements PageProvider {
  readonly name: string
  readonly capabilities: ProviderCapabilities
  /** What the pool did wrong, in words; empty for a healthy pool. */
  readonly violations: string[] = []
  /** Blocks that are out, by their number. */
  readonly blocks = new Map<MemoryBlock, number>()
  pagesOut = 0
  mostPagesOut = 0
  /** Calls so far. */
  gets = 0
  puts = 0
  releases = 0
  maps = 0
  unmaps = 0
  cachingCalls = 0
  /** Largest order that is given; the pool falls back to it (T21). */
  highestOrder = Number.POSITIVE_INFINITY
  /** By the number of the call, from 1: whether it fails. */
  refuseGet: (call: number) => boolean = () => false
  refusePut: (call: number) => boolean = () => false
  refuseRelease: (call: number) => boolean = () => false
  refuseMap: (call: number) => boolean = () => false
  /** The mapping is ended all the same. */
  refuseUnmap: (call: number) => boolean = () => false
  refuseCaching: (call: number) => boolean = () => false
  readonly #inner: PageProvider | undefined
  readonly #pageSizeBytes: number
  /** Pages whose caching is not the default, by block and page. */
  readonly #caching = new Map<string, Caching>()
  /** Mapped runs by block and offset: their address and length. */
  readonly #mapped = new Map<string, { address: number; lengthBytes: number }>()
  #nextNumber = 1

  constructor(options: RecordingProviderOptions = {}) {
    this.#inner = options.inner
    this.#pageSizeBytes = options.pageSizeBytes ?? 4096
    this.name = `recording ${options.inner?.name ?? 'memory'}`
    this.capabilities = options.inner?.capabilities ?? {
      swappable: true,
      movable: true,
      shareable: false,
      pageExactRelease: options.pageExactRelease ?? true,
    }
  }

  get mappedRuns(): number {
    return this.#mapped.size
  }

  get convertedPages(): number {
    return this.#caching.size
  }

  async probe(): Promise<boolean> {
    return this.#inner?.probe() ?? true
  }

  get(order: number, request: MemoryRequest): MemoryBlock | undefined {
    this.gets++
    if (order > this.highestOrder || this.refuseGet(this.gets)) return undefined
    const block = this.#inner === undefined ? this.#own(request.lengthBytes) : this.#inner.get(order, request)
    if (block === undefined) return undefined
    this.blocks.set(block, this.#nextNumber++)
    this.pagesOut += request.lengthBytes / this.#pageSizeBytes
    this.mostPagesOut = Math.max(this.mostPagesOut, this.pagesOut)
    return block
  }

  /** Nothing is refused any more. */
  heal(): void {
    this.highestOrder = Number.POSITIVE_INFINITY
    this.refuseGet = never
    this.refusePut = never
    this.refuseRelease = never
    this.refuseMap = never
    this.refuseUnmap = never
    this.refuseCaching = never
  }

  put(block: MemoryBlock): void {
    this.puts++
    if (this.refusePut(this.puts)) throw new Error('put refused')
    const lengthBytes = block.bytes.byteLength
    this.#assertGivable('put back', { block, offsetBytes: 0, lengthBytes })
    if (!this.blocks.delete(block)) return
    this.pagesOut -= lengthBytes / this.#pageSizeBytes
    if (this.#inner !== undefined) {
      this.#inner.put(block)
      return
    }
    const others = spare.get(lengthBytes)
    if (others === undefined) spare.set(lengthBytes, [block])
    else others.push(block)
  }

  release(run: MemoryRun): void {
    this.releases++
    if (this.refuseRelease(this.releases)) throw new Error('release refused')
    this.#assertGivable('released', run)
    if (this.#inner === undefined) {
      run.block.bytes.fill(0, run.offsetBytes, run.offsetBytes + run.lengthBytes)
    } else {
      this.#inner.release!(run)
    }
  }

  setCaching(runs: readonly MemoryRun[], caching: Caching): void {
    this.cachingCalls++
    if (this.refuseCaching(this.cachingCalls)) throw new Error('caching refused')
    for (const run of runs) {
      const number = this.#numberOf('converted', run)
      for (const page of this.#pages(run)) {
        if (caching === 'cached') this.#caching.delete(`${number}+${page}`)
        else this.#caching.set(`${number}+${page}`, caching)
      }
    }
  }

  map(run: MemoryRun): number {
    this.maps++
    if (this.refuseMap(this.maps)) throw new Error('mapping refused')
    const number = this.#numberOf('mapped', run)
    const key = `${number}+${run.offsetBytes}`
    if (this.#mapped.has(key)) this.violations.push(`run ${key} is mapped twice`)
    const address = number * 2 ** 32 + run.offsetBytes
    this.#mapped.set(key, { address, lengthBytes: run.lengthBytes })
    return address
  }

  unmap(run: MemoryRun, deviceAddress: number): void {
    const key = `${this.#numberOf('unmapped', run)}+${run.offsetBytes}`
    const mapped = this.#mapped.get(key)
    if (mapped?.address !== deviceAddress || mapped.lengthBytes !== run.lengthBytes) {
      this.violations.push(`run ${key} of ${run.lengthBytes} bytes is unmapped but was not mapped so`)
    }
    this.#mapped.delete(key)
    this.unmaps++
    if (this.refuseUnmap(this.unmaps)) throw new Error('unmap refused')
  }

  /** Fresh memory is zeros, whatever was in it before (I6 begins here). */
  #own(lengthBytes: number): MemoryBlock {
    const block = spare.get(lengthBytes)?.pop()
    if (block === undefined) return { bytes: new Uint8Array(lengthBytes) }
    block.bytes.fill(0)
    return { bytes: block.bytes }
  }

  #assertGivable(what: string, run: MemoryRun): void {
    const number = this.#numberOf(what, run)
    if (this.#caching.size > 0) {
      for (const page of this.#pages(run)) {
        const caching = this.#caching.get(`${number}+${page}`)
        if (caching !== undefined)
          this.violations.push(`page ${page} of block ${number} is ${what} while ${caching}`)
      }
    }
    if (this.#mapped.size === 0) return
    for (const [key, mapped] of this.#mapped) {
      const [block, offset] = key.split('+').map(Number) as [number, number]
      const apart =
        offset + mapped.lengthBytes <= run.offsetBytes || run.offsetBytes + run.lengthBytes <= offset
      if (block === number && !apart) this.violations.push(`run ${key} is ${what} while it is mapped`)
    }
  }

  #numberOf(what: string, run: MemoryRun): number {
    const number = this.blocks.get(run.block)
    const fits =
      run.offsetBytes % this.#pageSizeBytes === 0 &&
      run.offsetBytes + run.lengthBytes <= run.block.bytes.byteLength
    if (number === undefined || !fits || run.lengthBytes === 0) {
      this.violations.push(
        `bytes ${run.offsetBytes} +${run.lengthBytes} of block ${number ?? 'that is not out'} are ${what}`,
      )
    }
    return number ?? 0
  }

  *#pages(run: MemoryRun): Generator<number> {
    const first = run.offsetBytes / this.#pageSizeBytes
    const count = run.lengthBytes / this.#pageSizeBytes
    for (let page = first; page < first + count; page++) yield page
  }
}

const never = () => false
