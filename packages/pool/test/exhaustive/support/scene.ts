import { type ErrorCode, SpillwayError } from '@spillway/core'
import { expect } from 'vitest'
import {
  type AllocateOptions,
  MemoryBudget,
  type PagedBuffer,
  Pool,
  type PoolOptions,
} from '../../../src/index.ts'
import type { VirtualTime } from '../../model/virtual-time.ts'
import { firstDifference, page, pattern } from '../../support/bytes.ts'
import { RecordingProvider } from './recording-provider.ts'
import { type ScriptedBackup, type ScriptedBackupOptions, scriptedBackup } from './scripted-backup.ts'
import { nameOf, pagesOf, type Shape } from './shapes.ts'

export interface SceneOptions {
  readonly shape: Shape
  readonly maxOrder: number
  readonly limitPages?: number
  readonly pool?: Partial<PoolOptions>
  readonly backup?: ScriptedBackupOptions
  readonly buffer?: AllocateOptions
  readonly pageExactRelease?: boolean
  /** Smaller chunks are carved out of blocks of the highest order; only for shapes that come about by themselves. */
  readonly carved?: boolean
  /** A second pool has the same budget; what takes memory from the subject takes it there. */
  readonly neighbour?: boolean
}

/** A pool with one buffer whose chunks are as the shape says, and the bytes that it has to hold. */
export class Scene {
  readonly options: SceneOptions
  readonly provider: RecordingProvider
  readonly backup: ScriptedBackup
  readonly pool: Pool
  readonly budget: MemoryBudget | undefined
  readonly neighbour: Pool | undefined
  readonly oracle: Uint8Array
  readonly time: VirtualTime
  buffer!: PagedBuffer
  /** Other buffers that an operation made, with what they hold. */
  readonly others: { readonly buffer: PagedBuffer; readonly oracle: Uint8Array }[] = []

  constructor(options: SceneOptions, time: VirtualTime) {
    this.options = options
    this.time = time
    const pageCount = pagesOf(options.shape)
    this.provider = new RecordingProvider({ pageExactRelease: options.pageExactRelease ?? true })
    this.backup = scriptedBackup(options.backup)
    const limitBytes = (options.limitPages ?? pageCount + 2 ** options.maxOrder) * page
    this.budget = options.neighbour === true ? new MemoryBudget({ limitBytes }) : undefined
    const poolOptions: PoolOptions = {
      ...(this.budget === undefined ? { limitBytes } : { budget: this.budget }),
      maxOrder: options.maxOrder,
      provider: this.provider,
      backup: this.backup,
      idleBytes: 0,
      whenFull: 'fail',
      background: false,
      ...options.pool,
    }
    this.pool = new Pool(poolOptions)
    if (this.budget !== undefined) this.neighbour = new Pool({ ...poolOptions, name: 'neighbour' })
    this.oracle = new Uint8Array(pageCount * page)
  }

  /** What all pools hold. */
  get residentBytes(): number {
    return this.budget?.stats().residentBytes ?? this.pool.stats().residentBytes
  }

  static async build(options: SceneOptions, time: VirtualTime): Promise<Scene> {
    const scene = new Scene(options, time)
    scene.buffer = await scene.pool.allocate(scene.oracle.byteLength, {
      label: 'subject',
      ...options.buffer,
    })
    await scene.#shape()
    return scene
  }

  /** Chunks come from the provider one by one, so each has the order that the provider still gives. */
  async #shape(): Promise<void> {
    const { buffer, provider, backup, oracle, pool } = this
    const { carved } = this.options
    const chunks: { first: number; order: number; state: string; from: number; to: number }[] = []
    let first = 0
    for (const { order, state } of this.options.shape) {
      chunks.push({ first, order, state, from: first * page, to: (first + 2 ** order) * page })
      first += 2 ** order
    }
    const write = async (state: (state: string) => boolean) => {
      for (const chunk of chunks) {
        if (!state(chunk.state)) continue
        if (carved !== true) provider.highestOrder = chunk.order
        oracle.set(noise.subarray(chunk.from + 1, chunk.to + 1), chunk.from)
        await buffer.write(chunk.from, oracle.subarray(chunk.from, chunk.to))
      }
    }
    await write((state) => state === 'stored' || state === 'clean' || state === 'partial')
    if (chunks.some(({ state }) => state !== 'empty' && state !== 'dirty')) {
      await buffer.backup()
      await this.returned()
    }
    const into = scratch.subarray(0, oracle.byteLength)
    for (const { state, order, from, to } of chunks) {
      if (carved !== true) provider.highestOrder = order
      if (state === 'partial') {
        const stop = backup.asked.copyPages + 2 ** (order - 1)
        backup.script = (_, index) => (index === stop ? new SpillwayError('EIO', 'half way') : undefined)
        await buffer.read(from, into.subarray(from, to)).catch(() => {})
        backup.script = undefined
      }
      if (state === 'clean') await buffer.read(from, into.subarray(from, to))
    }
    await write((state) => state === 'dirty')
    provider.highestOrder = Number.POSITIVE_INFINITY
    const resident = chunks.filter(({ state }) => state !== 'empty' && state !== 'stored').length
    if (pool.stats().chunks !== resident) throw new Error(`no such scene: ${nameOf(this.options.shape)}`)
    backup.asked.backupPages = 0
    backup.asked.copyPages = 0
    backup.asked.drop = 0
  }

  /** Resolves when what backups freed has gone to the system. */
  async returned(): Promise<void> {
    while (this.pool.stats().retainedBytes > 0) await new Promise(setImmediate)
  }

  /** The next page of this number, from 0, stops its call. */
  failAt(method: 'backupPages' | 'copyPages', at: number, code: ErrorCode): void {
    this.backup.script = (called, index) => {
      if (called !== method || index !== at) return undefined
      this.backup.script = undefined
      return new SpillwayError(code, 'as planned', { backup: 'scripted' })
    }
  }

  heal(): void {
    const { backup, provider } = this
    backup.script = undefined
    backup.dropFailures = []
    backup.availableFailure = undefined
    provider.heal()
    this.time.pass(2000)
  }

  /** All gauges, all handles, all pages: I2, I3, I4, I5, I7, I10, I11. */
  async check(): Promise<void> {
    const { pool, neighbour, provider, backup } = this
    const pools = neighbour === undefined ? [pool] : [pool, neighbour]
    for (const each of pools) await each.settled()
    const { residentBytes } = this
    const out = provider.pagesOut * page
    const problems = [...provider.violations]
    let stored = 0
    for (const each of pools) {
      problems.push(...each.verify())
      const stats = each.stats()
      stored += stats.backedUpBytes + stats.keptBytes + stats.dropFailures * page
      if (stats.waiters > 0) problems.push(`I9: ${stats.waiters} claims wait`)
    }
    if (backup.stats().livePages * page !== stored)
      problems.push(`I3: ${backup.stats().livePages} pages live, ${stored / page} known`)
    if (provider.capabilities.pageExactRelease ? residentBytes > out : residentBytes !== out)
      problems.push(`I2: ${out} bytes out, ${residentBytes} resident`)
    if (residentBytes > pool.limitBytes) problems.push(`I7: ${residentBytes} bytes resident`)
    if (problems.length > 0) throw new Error(`${nameOf(this.options.shape)}: ${problems.join('; ')}`)
  }

  /** Every byte is there (I1), and when all is given up nothing is left (I2, I3, I4, I5, I12). */
  async finish(): Promise<void> {
    this.heal()
    for (const { buffer, oracle } of [{ buffer: this.buffer, oracle: this.oracle }, ...this.others]) {
      if (buffer.freed) continue
      const found = scratch.subarray(0, oracle.byteLength).fill(0xdd)
      await buffer.read(0, found)
      const difference = firstDifference(found, oracle)
      if (difference >= 0)
        throw new Error(`I1: ${nameOf(this.options.shape)}: byte ${difference} of ${buffer.label} is wrong`)
      await this.check()
      await buffer.free()
      await this.check()
    }
    await this.neighbour?.close()
    await this.pool.close()
    this.checkEmpty()
    await this.pool.close()
  }

  checkEmpty(): void {
    const { provider, backup, pool } = this
    expect(provider.violations).toEqual([])
    const left = [
      provider.pagesOut,
      provider.mappedRuns,
      provider.convertedPages,
      backup.stats().livePages,
      pool.stats().residentBytes,
      pool.stats().chunks,
    ]
    if (left.some((count) => count !== 0)) {
      throw new Error(
        `I2, I3, I4, I5: ${nameOf(this.options.shape)}: left pages, mappings, converted, live, resident, chunks ${left}`,
      )
    }
  }
}

export const noise = pattern(130 * page, 11)
/** Scenes are played one after the other, so one place to read into is enough. */
const scratch = new Uint8Array(130 * page)
