import { type Backup, type FaultyBackup, faultyBackup, isSpillwayError, memoryBackup } from '@spillway/core'
import { machineOf } from '../../src/api/pool.ts'
import { MemoryBudget, type PagedBuffer, Pool } from '../../src/index.ts'
import { MmapProvider } from '../../src/providers/mmap.ts'
import { ResizableProvider } from '../../src/providers/resizable.ts'
import { RecordingProvider } from '../exhaustive/support/recording-provider.ts'
import { page } from '../support/bytes.ts'
import { CopyLedger } from './copies.ts'
import { type HeldPin, isPending, releaseAll } from './pins.ts'
import type { Tally } from './tally.ts'
import type { VirtualTime } from './virtual-time.ts'

export const memories = ['mmap', 'resizable', 'own', 'own, whole blocks'] as const

export interface WorldOptions {
  readonly memory: (typeof memories)[number]
  readonly whenFull: 'wait' | 'fail'
  readonly split: 'native' | 'always'
  readonly maxOrder: number
  readonly limitPages: number
  readonly idlePages: number
  readonly debug: boolean
  /** Whether backups have `startCopy`. */
  readonly startsCopies: boolean
  /** Whether a second pool has the same budget, and what is never taken from it. */
  readonly neighbour: 'none' | 'equal' | 'protected'
}

/** A buffer, and what has to be in it. */
export interface Subject {
  readonly buffer: PagedBuffer
  backup: FaultyBackup | undefined
  readonly oracle: Uint8Array
  readonly pins: HeldPin[]
  /** Content may have been given up at any time since it was made purgeable: each byte is what it was, or 0. */
  mayBePurged: boolean
  freed: boolean
}

/** How a call uses the content of a buffer; within a group of calls, one that changes it excludes all others. */
export type Use = 'reads' | 'changes'

/** Native memory is made once: what a pool put back is there for the next. */
const mmap = new MmapProvider()
let mmapWorks: Promise<boolean> | undefined

export async function memoryWorks(memory: WorldOptions['memory']): Promise<boolean> {
  if (memory !== 'mmap') return true
  mmapWorks ??= mmap.probe()
  return mmapWorks
}

/**
 * A pool, or two of one budget, with all that belongs to it, and beside it the plain arrays of bytes that tell what it has to hold. One backup
 * has room for everything, the other is small so that it fills up.
 */
export class World {
  readonly options: WorldOptions
  readonly time: VirtualTime
  readonly tally: Tally
  /** The one that serves now is the last. */
  providers: RecordingProvider[]
  readonly copies = new CopyLedger()
  readonly backups: readonly [FaultyBackup, FaultyBackup]
  pools: readonly Pool[]
  budget: MemoryBudget | undefined
  subjects: Subject[] = []
  faulty = false
  /** Whether several calls are under way, so that what one call can expect depends on the others. */
  grouped = false
  /** Limits that were set, and those that are being set: a call meets them before they can be read. */
  #limitChanges = 0
  #limitsUnderWay = 0
  /** Whether the pool is being closed. */
  closing = false
  /** A call may still come to know of faults that ended while it was under way. */
  #faultyInStep = false
  readonly #uses = new Map<Subject, Use>()
  /** Buffers that releases of pins changed beside other calls, which may have looked before. */
  readonly #changedAmid = new Set<Subject>()
  #releasesAmid = 0
  #label = 0

  /** `wrap` puts something between the faults and the memory that the pages are stored in. */
  constructor(
    options: WorldOptions,
    time: VirtualTime,
    tally: Tally,
    wrap: (backup: Backup) => Backup = (backup) => backup,
  ) {
    this.options = options
    this.time = time
    this.tally = tally
    this.providers = [providerOf(options.memory)]
    this.backups = [
      this.copies.watch(backupOf('large', 600, options, wrap)),
      this.copies.watch(backupOf('small', 20, options, wrap)),
    ]
    this.pools = this.#makePools()
  }

  get pool(): Pool {
    return this.pools[0]!
  }

  #makePools(): Pool[] {
    const { whenFull, split, maxOrder, limitPages, idlePages, debug, neighbour } = this.options
    this.providers = [this.providers.at(-1)!]
    const options = {
      limitBytes: limitPages * page,
      idleBytes: idlePages * page,
      provider: this.providers[0]!,
      whenFull,
      split,
      maxOrder,
      debug,
    }
    if (neighbour === 'none') return [new Pool(options)]
    const budget = new MemoryBudget({ limitBytes: limitPages * page })
    this.budget = budget
    const shared = { ...options, budget, limitBytes: undefined }
    return [new Pool(shared), new Pool({ ...shared, weight: 2, minBytes: this.minPages * page })]
  }

  /** What the first pool never takes from the second. */
  get minPages(): number {
    return this.options.neighbour === 'protected' ? 3 : 0
  }

  get residentBytes(): number {
    return this.budget?.stats().residentBytes ?? this.pool.stats().residentBytes
  }

  async setLimit(limitBytes: number, signal?: AbortSignal): Promise<void> {
    this.#limitChanges++
    this.#limitsUnderWay++
    try {
      await (this.budget ?? this.pool).setLimit(limitBytes, { signal })
    } finally {
      this.#limitsUnderWay--
    }
  }

  /** Whether nothing else moves pages: no other call, and no readahead that an earlier one began. */
  get isAlone(): boolean {
    if (this.grouped) return false
    return this.pools.every((pool) => {
      for (const { readahead } of machineOf(pool).residents.buffers.values()) if (readahead) return false
      return true
    })
  }

  /** Forgets which call uses what: a new step begins. */
  beginStep(grouped: boolean): void {
    this.#uses.clear()
    this.#changedAmid.clear()
    this.#faultyInStep = this.faulty
    this.grouped = grouped
  }

  /** Whether a call may use a buffer's content beside the calls that are under way. */
  use(subject: Subject, use: Use): boolean {
    const other = this.#uses.get(subject)
    if (other === 'changes' || (other === 'reads' && use === 'changes')) return false
    this.#uses.set(subject, use)
    return true
  }

  /** Whether a release of pins changed the buffer beside calls of this step. */
  isChangedAmid(subject: Subject): boolean {
    return this.#changedAmid.has(subject)
  }

  async allocate(sizeBytes: number, which: number, maxOrder: number, device: number): Promise<void> {
    const backup = which < 2 ? this.backups[which] : undefined
    const own = this.options.memory.startsWith('own')
    const pool = this.pools[++this.#label % this.pools.length]!
    const result = await this.attempt(() =>
      pool.allocate(sizeBytes, {
        label: `b${this.#label}`,
        backup,
        maxOrder: Math.min(maxOrder, this.options.maxOrder),
        caching: own && device === 1 ? 'write-combined' : 'cached',
        deviceMapped: own && device === 2,
      }),
    )
    if (result.value === undefined) return
    this.subjects.push({
      buffer: result.value,
      backup,
      oracle: new Uint8Array(sizeBytes),
      pins: [],
      mayBePurged: false,
      freed: false,
    })
  }

  /**
   * Runs a call to its end. A call that waits for what only the application could release is aborted after some turns of
   * the event loop. Its failure is a value; one that it must not have is thrown.
   */
  async attempt<Value>(
    call: (signal: AbortSignal | undefined) => Promise<Value>,
    abortAfterTicks = -1,
  ): Promise<{ value?: Value; error?: unknown; aborted: boolean }> {
    this.tally.attempts++
    let settled = false
    let controller: AbortController | undefined
    let signal: AbortSignal | undefined
    if (abortAfterTicks >= 0 || this.options.whenFull === 'wait') {
      controller = new AbortController()
      signal = controller.signal
    }
    const result: { value?: Value; error?: unknown; aborted: boolean } = { aborted: false }
    const promise = call(signal).then(
      (value) => {
        settled = true
        result.value = value
      },
      (error: unknown) => {
        settled = true
        result.error = error
      },
    )
    if (abortAfterTicks >= 0) {
      for (let tick = 0; tick < abortAfterTicks && !settled; tick++) await undefined
      if (!settled) {
        result.aborted = true
        controller!.abort(new Error('changed my mind'))
      }
    }
    for (let turn = 0; !settled; turn++) {
      await Promise.race([promise, nextTurn()])
      if (turn === patienceTurns && controller !== undefined) {
        result.aborted = true
        controller.abort(new Error('waited long enough'))
      }
      if (turn > 20 * patienceTurns)
        throw new Error(`I9: a call does not end; ${this.pools.map((pool) => pool.dump()).join()}`)
    }
    if (result.error !== undefined) this.#assertAllowed(result.error, result.aborted)
    return result
  }

  /** Fails for an error that no call may have in this situation. */
  #assertAllowed(error: unknown, aborted: boolean): void {
    const faulty = this.faulty || this.#faultyInStep
    // What a provider throws is passed on as it is.
    if (faulty && error instanceof Error && error.message === 'caching refused') return
    if (!isSpillwayError(error)) throw error
    const { code } = error
    this.tally.noteError(code)
    if (code === 'EBADF' && (this.grouped || this.closing)) return
    if (code === 'EINTR' && (aborted || this.grouped || faulty)) return
    if (code === 'ENOMEM' || code === 'EBUSY') {
      if (this.#mustSucceed(error.retryable)) throw error
      return
    }
    if (faulty && faultCodes.has(code)) return
    throw error
  }

  /** Nothing is held, nothing fails, and there is room for everything: then memory can always be had. */
  #mustSucceed(retryable: boolean): boolean {
    if (this.faulty || this.#faultyInStep || this.grouped || !retryable || this.minPages > 0) return false
    return this.subjects.every(({ pins, backup }) => pins.length === 0 && backup === this.backups[0])
  }

  /** The bytes that are there, whatever it takes: faults end, pins are released, at last the limit is raised. */
  async readBack(subject: Subject, offset: number, length: number): Promise<Uint8Array> {
    const found = new Uint8Array(length).fill(0x5a)
    if (subject.freed || length === 0) return found
    const wasFaulty = this.faulty
    this.heal()
    const wasGrouped = this.grouped
    this.grouped = true
    for (;;) {
      const { limitBytes } = this.pool
      const changes = this.#limitChanges + this.#limitsUnderWay
      const { error } = await this.attempt((signal) => subject.buffer.read(offset, found, { signal }))
      if (error === undefined) break
      if (this.closing) return found
      const pinned = this.subjects.find(({ pins }) => pins.length > 0)
      if (pinned !== undefined) {
        this.#releasePins(pinned, wasGrouped)
        continue
      }
      // What is in memory and has no room in its backup can only be read with more memory.
      // Unless another step of the group lowered the limit meanwhile, or is about to.
      if (limitBytes >= 1000 * page && changes === this.#limitChanges) throw error
      await this.setLimit(1000 * page)
    }
    this.grouped = wasGrouped
    this.faulty = wasFaulty && this.faulty
    return found
  }

  /** The same, read again when a release of pins may have changed them meanwhile. */
  async readBackQuietly(subject: Subject, offset: number, length: number): Promise<Uint8Array> {
    for (;;) {
      const releases = this.#releasesAmid
      const found = await this.readBack(subject, offset, length)
      if (releases === this.#releasesAmid || subject.freed) return found
    }
  }

  /** Waits for what must end by itself. */
  async ends<Value>(what: string, call: Promise<Value>): Promise<Value> {
    let settled = false
    const done = call.finally(() => {
      settled = true
    })
    done.catch(() => {})
    for (let turn = 0; !settled; turn++) {
      await Promise.race([done, nextTurn()]).catch(() => {})
      if (turn > 20 * patienceTurns)
        throw new Error(`I9: ${what} does not end; ${this.pools.map((pool) => pool.dump()).join()}`)
    }
    return done
  }

  /** Lets go of all pins of a buffer; in debug mode that is when what was written through them becomes seen. */
  #releasePins(subject: Subject, amid: boolean): void {
    if (amid && subject.pins.some(isPending)) {
      this.#changedAmid.add(subject)
      this.#releasesAmid++
    }
    releaseAll(subject)
  }

  async free(subject: Subject): Promise<void> {
    this.#releasePins(subject, this.grouped)
    subject.freed = true
    this.subjects = this.subjects.filter((other) => other !== subject)
    await this.ends('free', subject.buffer.free())
  }

  /**
   * Compares bytes that were read with those that have to be there. What was purged becomes known by it, unless calls beside
   * this one read the same: they may have looked before it was purged, and come back later.
   */
  compare(subject: Subject, offset: number, found: Uint8Array, learns = !this.grouped): void {
    // Who learns on purpose has read after the release.
    if (!learns && this.#changedAmid.has(subject)) return
    const expected = subject.oracle.subarray(offset, offset + found.byteLength)
    if (Buffer.compare(found, expected) === 0) return
    for (let index = 0; index < found.byteLength; index++) {
      if (found[index] === expected[index]) continue
      if (subject.mayBePurged && found[index] === 0) continue
      const place = `${subject.buffer.label} byte ${offset + index} (page ${Math.floor((offset + index) / page)})`
      throw new Error(`I1: ${place} is ${found[index]}, not ${expected[index]}`)
    }
    if (learns) expected.set(found)
  }

  /** Everything that holds after every step. */
  async check(): Promise<void> {
    const { pools, providers } = this
    for (const pool of pools) await this.ends('settled', pool.settled())
    const problems = pools.flatMap((pool) => pool.verify())
    if (problems.length > 0) throw new Error(`I10, I11: ${problems.join('; ')}`)
    const violations = providers.flatMap((provider) => provider.violations.splice(0))
    if (violations.length > 0) throw new Error(`I2, I4, I5: ${violations.join('; ')}`)
    const sums = { backedUpBytes: 0, keptBytes: 0, dropFailures: 0, pins: 0, buffers: 0, waiters: 0 }
    for (const pool of pools) {
      const stats = pool.stats()
      for (const gauge of Object.keys(sums) as (keyof typeof sums)[]) sums[gauge] += stats[gauge]
      if (stats.residentBytes > stats.limitBytes) throw new Error('I7: more memory than the limit')
    }
    const { residentBytes } = this
    if (residentBytes > pools[0]!.limitBytes) throw new Error('I7: more memory than the limit of all pools')
    const out = providers.reduce((pages, { pagesOut }) => pages + pagesOut, 0) * page
    const exact = providers.some(({ capabilities }) => capabilities.pageExactRelease)
    if (exact ? residentBytes > out : residentBytes !== out)
      throw new Error(`I2: the provider has ${out} bytes out, the pools say ${residentBytes}`)
    let live = 0
    for (const backup of this.backups) live += backup.stats().livePages * page
    if (live !== sums.backedUpBytes + sums.keptBytes + sums.dropFailures * page)
      throw new Error(
        `I3: ${live} bytes stored, the buffers have ${sums.backedUpBytes} and keep ${sums.keptBytes}`,
      )
    let pins = 0
    for (const subject of this.subjects) pins += subject.pins.length
    if (sums.pins !== pins) throw new Error(`I11: ${sums.pins} pins, not ${pins}`)
    if (sums.buffers !== this.subjects.length) throw new Error(`I11: ${sums.buffers} buffers`)
    if (sums.waiters !== 0) throw new Error(`I9: ${sums.waiters} claims still wait`)
  }

  /** Ends faults; backups are given a second chance at once. */
  heal(): void {
    for (const backup of this.backups) backup.heal()
    for (const provider of this.providers) provider.heal()
    if (this.faulty) this.#faultyInStep = true
    this.faulty = false
    this.time.pass(2000)
  }

  /** Closes the pool, checks that nothing is left, and begins again with an empty one. */
  async reopen(): Promise<void> {
    for (const subject of this.subjects) {
      releaseAll(subject)
      subject.freed = true
    }
    this.subjects = []
    this.closing = true
    // What a provider refuses until the end stays with the pool.
    for (const provider of this.providers) provider.heal()
    for (const pool of this.pools) await this.ends('close', pool.close())
    for (const pool of this.pools) this.tally.noteStats(pool.stats())
    await this.checkEmpty()
    this.pools = this.#makePools()
    this.closing = false
  }

  /** Closes the pool while calls are under way; pins that are in the way are released, as often as it takes. */
  async closeAmid(calls: Promise<unknown>): Promise<void> {
    this.closing = true
    for (const subject of this.subjects) subject.freed = true
    for (let attempt = 0; ; attempt++) {
      const refused = await Promise.all(this.pools.map((pool) => pool.close())).then(
        () => undefined,
        (error: unknown) => error,
      )
      if (refused === undefined) break
      if (!isSpillwayError(refused) || refused.code !== 'EBUSY' || attempt > 1000) throw refused
      for (const subject of this.subjects) this.#releasePins(subject, true)
      await nextTurn()
    }
    await calls
    this.subjects = []
    await this.checkEmpty()
  }

  async checkEmpty(): Promise<void> {
    const { providers, pools } = this
    await this.check()
    // What a backup refused to release is released when it is asked again.
    this.heal()
    await this.check()
    for (const { pagesOut, mappedRuns, convertedPages } of providers) {
      if (pagesOut !== 0) throw new Error(`I2: ${pagesOut} pages out after close`)
      if (mappedRuns !== 0) throw new Error(`I4: ${mappedRuns} mappings after close`)
      if (convertedPages !== 0) throw new Error(`I5: ${convertedPages} pages converted`)
    }
    for (const backup of this.backups) {
      const { livePages } = backup.stats()
      if (livePages !== 0) throw new Error(`I3: ${livePages} pages in ${backup.name} after close`)
    }
    // I12: a second close is harmless.
    for (const pool of pools) await pool.close()
  }
}

export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

const patienceTurns = 60
const faultCodes: ReadonlySet<string> = new Set([
  'EIO',
  'ENOSPC',
  'EAGAIN',
  'ETIMEDOUT',
  'EBADMSG',
  'EDQUOT',
  'EFAULT',
])

export function providerOf(memory: WorldOptions['memory']): RecordingProvider {
  if (memory === 'mmap') return new RecordingProvider({ inner: mmap })
  if (memory === 'resizable') return new RecordingProvider({ inner: new ResizableProvider() })
  return new RecordingProvider({ pageExactRelease: memory === 'own' })
}

function backupOf(
  name: string,
  capacityPages: number,
  { startsCopies }: WorldOptions,
  wrap: (backup: Backup) => Backup,
): FaultyBackup {
  const inner = memoryBackup({ capacityBytes: capacityPages * page, name })
  if (!startsCopies) Object.assign(inner, { startCopy: undefined })
  return faultyBackup(wrap(inner), { seed: 1, maxRecordedCalls: 0 })
}
