import type {
  Caching,
  MemoryBlock,
  MemoryRequest,
  MemoryRun,
  PageProvider,
  ProviderCapabilities,
} from '../../src/index.ts'

/** A provider that remembers what it was asked, and fails when it is told to. */
export class FakeProvider implements PageProvider {
  readonly name: string
  readonly capabilities: ProviderCapabilities
  /** Orders and efforts asked for, oldest first. */
  readonly requests: { order: number; whole: boolean; retryMayFail: boolean }[] = []
  readonly cachingCalls: { caching: Caching; pages: number; runs: number }[] = []
  /** Blocks that are out. */
  readonly blocks = new Set<MemoryBlock>()
  /** By block and offset: address. */
  readonly mappings = new Map<string, number>()
  readonly released: number[] = []
  /** Says whether a request fails. */
  refuse: (order: number) => boolean = () => false
  failCaching = false
  /** Mappings to allow before one fails. */
  mapsUntilFailure = Number.POSITIVE_INFINITY
  probes = true
  #caching = new Map<string, Caching>()
  readonly #pageSizeBytes: number
  #ids = new Map<MemoryBlock, number>()
  #nextId = 1

  constructor(
    options: { name?: string; pageSizeBytes?: number; capabilities?: Partial<ProviderCapabilities> } = {},
  ) {
    this.name = options.name ?? 'fake'
    this.#pageSizeBytes = options.pageSizeBytes ?? 4096
    this.capabilities = {
      swappable: true,
      movable: true,
      shareable: false,
      pageExactRelease: true,
      ...options.capabilities,
    }
  }

  probe(): boolean {
    return this.probes
  }

  get(order: number, request: MemoryRequest): MemoryBlock | undefined {
    this.requests.push({ order, whole: request.whole, retryMayFail: request.retryMayFail })
    if (this.refuse(order)) return undefined
    const block = { bytes: new Uint8Array(request.lengthBytes) }
    this.blocks.add(block)
    this.#ids.set(block, this.#nextId++)
    return block
  }

  put(block: MemoryBlock): void {
    if (!this.blocks.delete(block)) throw new Error('a block that is not out was put back')
    for (const key of this.#keys({ block, offsetBytes: 0, lengthBytes: block.bytes.byteLength })) {
      if ((this.#caching.get(key) ?? 'cached') !== 'cached')
        throw new Error(`page ${key} came back ${this.#caching.get(key)}`)
      this.#caching.delete(key)
    }
  }

  release(run: MemoryRun): void {
    for (const key of this.#keys(run)) {
      if ((this.#caching.get(key) ?? 'cached') !== 'cached')
        throw new Error(`page ${key} left ${this.#caching.get(key)}`)
    }
    this.released.push(run.lengthBytes / this.#pageSizeBytes)
    run.block.bytes.fill(0, run.offsetBytes, run.offsetBytes + run.lengthBytes)
  }

  setCaching(runs: readonly MemoryRun[], caching: Caching): void {
    if (this.failCaching && caching !== 'cached') throw new Error('caching refused')
    let pages = 0
    for (const run of runs) {
      for (const key of this.#keys(run)) {
        this.#caching.set(key, caching)
        pages++
      }
    }
    this.cachingCalls.push({ caching, pages, runs: runs.length })
  }

  map(run: MemoryRun): number {
    if (this.mapsUntilFailure-- <= 0) throw new Error('no more mappings')
    const key = this.#key(run)
    if (this.mappings.has(key)) throw new Error('mapped twice')
    const address = 0x1000_0000 * this.#ids.get(run.block)! + run.offsetBytes
    this.mappings.set(key, address)
    return address
  }

  unmap(run: MemoryRun, deviceAddress: number): void {
    const key = this.#key(run)
    if (this.mappings.get(key) !== deviceAddress) throw new Error(`${deviceAddress} is not mapped`)
    this.mappings.delete(key)
  }

  get pagesOut(): number {
    let bytes = 0
    for (const block of this.blocks) bytes += block.bytes.byteLength
    return bytes / this.#pageSizeBytes
  }

  #key(run: MemoryRun): string {
    return `${this.#ids.get(run.block)}+${run.offsetBytes}`
  }

  *#keys(run: MemoryRun): Generator<string> {
    for (let offset = 0; offset < run.lengthBytes; offset += this.#pageSizeBytes) {
      yield `${this.#ids.get(run.block)}+${run.offsetBytes + offset}`
    }
  }
}
