import { compressedBackup } from '@spillway/backup-compressed'
import { encryptedBackup } from '@spillway/backup-encrypted'
import { type ErrorCode, isSpillwayError, SpillwayError } from '@spillway/core'
import { type PagedBuffer, Pool } from '@spillway/pool'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { contentOf, type Kind, pageBytes } from '../../backup-compressed/test/content.ts'
import { type ScriptedBackup, scriptedBackup } from '../../pool/test/exhaustive/support/scripted-backup.ts'
import { VirtualTime } from '../../pool/test/model/virtual-time.ts'
import { tieredBackup } from '../src/index.ts'

/** The pool's exhaustive faults, over compressed(tiered(fast, encrypted(slow))): each page and each call of `fast` and `slow` fails in turn. */

const allOfIt = process.env['SPILLWAY_EXHAUSTIVE'] === '1'
vi.setConfig({ testTimeout: allOfIt ? 3_600_000 : 120_000 })
const time = new VirtualTime()
const warnings = process.listeners('warning')
beforeAll(() => time.install())
afterAll(() => time.uninstall())
// That a backup does not drop pages is told as a warning.
beforeEach(() => void process.removeAllListeners('warning'))
afterEach(() => {
  for (const listener of warnings) process.on('warning', listener)
})

type TierName = 'fast' | 'slow'
type Method = 'backupPages' | 'copyPages' | 'drop'

/** What fails: the `at`th page that a tier is asked for (the `at`th call of `drop`), and all after it where it lasts. */
interface Fault {
  readonly tier: TierName
  readonly method: Method
  readonly at: number
  readonly code: ErrorCode
  readonly lasts: boolean
}

interface SceneOptions {
  readonly pageCount: number
  readonly maxOrder: number
  /** How many pages may be in memory; fewer than the buffer has where some have left before the operation. */
  readonly limitPages: number
  /** Whether all of the buffer is stored before the operation. */
  readonly isStored: boolean
  readonly startsCopies: boolean
}

/** More than an operation makes. */
const mostDrops = 100

const codesOf: Readonly<Record<Method, readonly ErrorCode[]>> = {
  backupPages: ['ENOSPC', 'EIO'],
  copyPages: ['EIO', 'EBADMSG'],
  drop: ['EIO'],
}

const mixed: readonly Kind[] = ['random', 'half', 'random', 'text', 'zeros', 'random', 'word']

/** A bit of everything that compression tells apart, in runs that are shorter and longer than a unit. */
function bytesOf(seed: number, pageCount: number): Uint8Array {
  const bytes = new Uint8Array(pageCount * pageBytes)
  for (let page = 0, run = seed; page < pageCount; run++) {
    const length = Math.min(pageCount - page, 1 + ((run * 5) % 7))
    bytes.set(contentOf(mixed[run % mixed.length], seed * 100 + run, length), page * pageBytes)
    page += length
  }
  return bytes
}

/** A pool over the stack, with one buffer and the bytes that it has to hold. */
class Scene {
  readonly options: SceneOptions
  readonly tiers: Record<TierName, ScriptedBackup>
  readonly stack: ReturnType<typeof compressedBackup>
  readonly pool: Pool
  readonly content: Uint8Array
  buffer!: PagedBuffer
  /** Whether an operation came as far as the fault. */
  isMet: () => boolean = () => false
  #mostResidentBytes = 0

  constructor(options: SceneOptions) {
    const { pageCount, maxOrder, limitPages, startsCopies } = options
    this.options = options
    const tier = (name: string, capacityPages: number) =>
      scriptedBackup({ name, capacityPages, startsCopies })
    this.tiers = {
      fast: tier('fast', Math.max(2, pageCount >> 1)),
      slow: tier('slow', 2 * pageCount + 8),
    }
    const { fast, slow } = this.tiers
    const tiered = tieredBackup({
      tiers: [{ backup: fast, highMark: 0.7, lowMark: 0.3 }, encryptedBackup(slow)],
      promote: 'second',
    })
    this.stack = compressedBackup(tiered, { unitBytes: 4 * pageBytes })
    this.pool = new Pool({
      limitBytes: limitPages * pageBytes,
      maxOrder,
      provider: 'resizable',
      backup: this.stack,
      whenFull: 'fail',
      background: false,
    })
    this.content = bytesOf(1, pageCount)
  }

  static async build(options: SceneOptions): Promise<Scene> {
    const scene = new Scene(options)
    scene.buffer = await scene.pool.allocate(scene.content.byteLength)
    await scene.buffer.write(0, scene.content)
    if (options.isStored) {
      const { error } = await scene.buffer.backup()
      if (error !== undefined) throw error
    }
    // Reading it again is what makes pages move between the tiers.
    if (options.limitPages < options.pageCount)
      await scene.buffer.read(0, new Uint8Array(scene.content.byteLength))
    await turns()
    return scene
  }

  break({ tier, method, at, code, lasts }: Fault): void {
    const backup = this.tiers[tier]
    const first = backup.asked[method] + at
    this.isMet = () => backup.asked[method] > first
    const failure = () => new SpillwayError(code, 'as planned', { backup: tier })
    if (method === 'drop') {
      const failures = Array.from({ length: lasts ? mostDrops : 1 }, failure)
      backup.dropFailures = [...Array.from<undefined>({ length: at }), ...failures]
    }
    for (const each of Object.values(this.tiers)) {
      each.script = (called, index) => {
        this.lookAtMemory()
        const fails = each === backup && called === method && (lasts ? index >= first : index === first)
        return fails ? failure() : undefined
      }
    }
  }

  heal(): void {
    for (const backup of Object.values(this.tiers)) {
      backup.script = undefined
      backup.dropFailures = []
    }
    time.pass(120_000)
  }

  lookAtMemory(): void {
    this.#mostResidentBytes = Math.max(this.#mostResidentBytes, this.pool.stats().residentBytes)
  }

  async check(): Promise<void> {
    await this.pool.settled()
    this.lookAtMemory()
    expect(this.#mostResidentBytes).toBeLessThanOrEqual(this.pool.limitBytes)
    expect(this.pool.verify()).toEqual([])
  }

  /** Reads everything, gives up everything, and finds nothing in the stores. */
  async finish(): Promise<void> {
    this.heal()
    const found = new Uint8Array(this.content.byteLength).fill(0xdd)
    await this.buffer.read(0, found)
    expect(Buffer.compare(found, this.content)).toBe(0)
    await this.check()
    await this.buffer.free()
    await this.check()
    await this.pool.close()
    expect(this.stack.stats().livePages).toBe(0)
    const left = () => Object.values(this.tiers).map((backup) => backup.stats().livePages)
    for (let waits = 0; waits < 200 && left().some((pages) => pages > 0); waits++) await turns(1)
    expect(left()).toEqual([0, 0])
    await this.stack.close()
  }
}

async function turns(count = 16): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve))
}

interface Operation {
  readonly name: string
  /** Whether it moves pages of a buffer that is stored, or of one that is in memory. */
  readonly isStored: boolean
  /** Whether the whole buffer has to have room in memory. */
  readonly needsRoom?: boolean
  /** Does it. What stopped it is thrown; that wrong bytes were shown is an error of the test. */
  run(scene: Scene): Promise<void>
}

const wrongBytes = 'I1: wrong bytes'

const operations: readonly Operation[] = [
  {
    name: 'backup',
    isStored: false,
    async run({ buffer }) {
      const { error } = await buffer.backup()
      if (error !== undefined) throw error
    },
  },
  {
    name: 'atomic backup',
    isStored: false,
    async run({ buffer }) {
      const before = buffer.residentBytes
      const { error, pages } = await buffer.backup({ atomic: true })
      if (error === undefined) return
      expect([pages, buffer.residentBytes]).toEqual([0, before])
      throw error
    },
  },
  {
    name: 'restore',
    isStored: true,
    needsRoom: true,
    async run({ buffer }) {
      const { error } = await buffer.restore()
      if (error !== undefined) throw error
    },
  },
  {
    name: 'read',
    isStored: true,
    async run({ buffer, content }) {
      const found = new Uint8Array(content.byteLength)
      await buffer.read(0, found)
      if (Buffer.compare(found, content) !== 0) throw new Error(wrongBytes)
    },
  },
  {
    name: 'write',
    isStored: true,
    async run({ buffer, content, options }) {
      // From within the first page to within the last: the edges have to be restored.
      const from = pageBytes / 2
      const bytes = bytesOf(2, options.pageCount).subarray(0, content.byteLength - pageBytes)
      if (bytes.byteLength === 0) return
      await buffer.write(from, bytes)
      content.set(bytes, from)
    },
  },
  {
    name: 'pin',
    isStored: true,
    async run({ buffer, content }) {
      const pinned = await buffer.pin({ length: Math.min(content.byteLength, 10 * pageBytes) })
      let done = 0
      for (const span of pinned.spans) {
        if (Buffer.compare(span, content.subarray(done, done + span.byteLength)) !== 0)
          throw new Error(wrongBytes)
        done += span.byteLength
      }
      pinned.release()
    },
  },
]

/** Goes through an operation once for each place at which a tier can fail, until it does not come that far. Returns how often it failed. */
async function failAtEveryPlace(
  options: SceneOptions,
  operation: Operation,
  fault: Omit<Fault, 'at'>,
): Promise<number> {
  for (let at = 0; ; at++) {
    const scene = await Scene.build(options)
    scene.break({ ...fault, at })
    try {
      const failure = await operation.run(scene).then(
        () => undefined,
        (error: unknown) => error,
      )
      await turns()
      const isMet = scene.isMet()
      // What the stack could not make good is told with a code, and never as bytes.
      if (failure !== undefined && !isSpillwayError(failure)) throw failure
      await scene.check()
      scene.heal()
      await operation.run(scene)
      await scene.check()
      await scene.finish()
      if (!isMet) return at
    } catch (cause) {
      const place = `${operation.name} of ${JSON.stringify(options)} with ${JSON.stringify({ ...fault, at })}`
      throw new Error(`${place}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
    }
  }
}

const shapes: readonly Pick<SceneOptions, 'pageCount' | 'maxOrder'>[] = [
  { pageCount: 1, maxOrder: 0 },
  { pageCount: 25, maxOrder: 3 },
  ...(allOfIt
    ? [
        { pageCount: 4, maxOrder: 2 },
        { pageCount: 21, maxOrder: 0 },
        { pageCount: 21, maxOrder: 4 },
      ]
    : []),
]

/** Every way in which an operation is gone through; each meets every kind of fault in the long form, else one code and one variant. */
function* casesOf({ isStored, needsRoom }: Operation): Generator<[SceneOptions, Omit<Fault, 'at'>]> {
  let turn = 0
  const some = <Value>(values: readonly Value[], every: number) =>
    allOfIt ? values : [values[Math.floor(turn / every) % values.length]]
  for (const shape of shapes) {
    const roomy = shape.pageCount + 2 ** shape.maxOrder
    const tight = Math.max(2 ** shape.maxOrder, shape.pageCount >> 1) + 4
    for (const limitPages of needsRoom === true ? [roomy] : [roomy, tight]) {
      for (const tier of ['fast', 'slow'] as const) {
        for (const method of ['backupPages', 'copyPages', 'drop'] as const) {
          turn++
          for (const code of some(codesOf[method], 1)) {
            for (const lasts of some([false, true], 2)) {
              for (const startsCopies of some([false, true], 4)) {
                yield [
                  { ...shape, limitPages, isStored, startsCopies },
                  { tier, method, code, lasts },
                ]
              }
            }
          }
        }
      }
    }
  }
}

/** Fewer would say that operations do not reach the tiers. */
const fewestFailures = 8

describe('a pool over compressed(tiered(fast, encrypted(slow))), a failure at every page and call of each tier', () => {
  for (const operation of operations) {
    it(`T32, T37, T43, T47, T63, I1, I3, I8, I11: ${operation.name} loses nothing and leaves nothing`, async () => {
      let failures = 0
      for (const [options, fault] of casesOf(operation)) {
        failures += await failAtEveryPlace(options, operation, fault)
      }
      expect(failures).toBeGreaterThan(fewestFailures)
    })
  }
})
