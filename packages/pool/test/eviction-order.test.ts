import { memoryBackup, nullBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { Pool } from '../src/index.ts'
import { BackingStore } from '../src/residency/backing-store.ts'
import { ChunkQueue } from '../src/residency/chunk-queue.ts'
import { ChunkUses, coldClean, notCold } from '../src/residency/chunk-uses.ts'
import { EvictionOrder } from '../src/residency/eviction-order.ts'
import { Ghosts } from '../src/residency/ghosts.ts'
import { intervalAfter, oldestAge, ReuseModel, usedOnce, writtenOnce } from '../src/residency/reuse-model.ts'
import { Chunks, cleanList, dirty, dirtyList } from '../src/table/chunks.ts'
import { page } from './support/bytes.ts'
import { Random } from './support/random.ts'

describe('a queue of chunks', () => {
  it('gives what came first, or what was put before it, through any number of chunks', () => {
    const queue = new ChunkQueue()
    const expected: number[] = []
    const random = new Random(3)
    for (let step = 0; step < 60_000; step++) {
      // It grows, and shrinks again.
      const kind = random.below(step < 30_000 ? 3 : 5)
      if (kind > 1 && expected.length > 0) {
        if (queue.shift() !== expected.shift()) expect.fail(`step ${step}`)
      } else if (kind === 0) {
        queue.push(step)
        expected.push(step)
      } else {
        queue.unshift(step)
        expected.unshift(step)
      }
    }
    expect(queue.length).toBe(expected.length)
    while (expected.length > 0) if (queue.shift() !== expected.shift()) expect.fail('the rest')
    expect(queue.metadataBytes).toBeLessThanOrEqual(4096 * 4)
  })
})

describe('what is remembered of evicted chunks', () => {
  it('is found once, by buffer and page, and takes 4 bytes a chunk', () => {
    const ghosts = new Ghosts()
    ghosts.grow(1000)
    expect(ghosts.metadataBytes).toBe(4000)
    for (let first = 0; first < 500; first++) {
      ghosts.remember(7, first * 8, { generation: first, interval: first % 160, uses: first % 5 })
    }
    let [known, strange] = [0, 0]
    for (let first = 0; first < 500; first++) {
      if (ghosts.take(8, first * 8, 500)) strange++
      if (!ghosts.take(7, first * 8, 500)) continue
      known++
      expect(ghosts.found).toEqual({
        generation: first,
        interval: (first % 160) & ~3,
        uses: Math.min(3, first % 5),
      })
      expect(ghosts.take(7, first * 8, 500)).toBe(false)
    }
    // The sets are half full: few of them had no room.
    expect(known).toBeGreaterThan(480)
    expect(strange).toBeLessThan(5)
  })
})

describe('the model of uses', () => {
  const learned = (teach: (model: ReuseModel) => void) => {
    const model = new ReuseModel()
    for (let round = 0; round < 20; round++) teach(model)
    model.learn()
    return model
  }

  it('before it is taught anything, takes what is used often for worth more than what is used rarely', () => {
    const model = new ReuseModel()
    const worths = [2, 8, 32, 128, 512].map((age) => model.worthOf(intervalAfter(usedOnce, 0, age), 1, 0))
    expect(worths).toEqual([...worths].sort((one, other) => other - one))
    expect(new Set(worths).size).toBe(worths.length)
  })

  it('learns that a scan is worth nothing beside what is used again', () => {
    const model = learned((each) => {
      for (let use = 0; use < 100; use++) each.noteUse(usedOnce, 0)
      for (let use = 0; use < 100; use++) each.noteUse(64, 5)
      for (let use = 0; use < 90; use++) each.noteReuse(64, 5, use % 16)
    })
    expect(model.worthOf(usedOnce, 0, 0)).toBeLessThan(model.worthOf(64, 5, 8) - 16)
  })

  it('learns from a loop that the oldest are wanted next', () => {
    const model = learned((each) => {
      for (let use = 0; use < 100; use++) each.noteUse(64, 5)
      for (let use = 0; use < 99; use++) each.noteReuse(64, 5, 24)
    })
    const worths = [0, 6, 12, 18, 23].map((age) => model.worthOf(64, 5, age))
    expect(worths).toEqual([...worths].sort((one, other) => one - other))
    expect(worths.at(-1)! - worths[0]!).toBeGreaterThan(8)
    expect(model.worthOf(64, 5, 40)).toBeLessThan(worths[0]!)
  })

  it('knows the age at which the least recently used would leave', () => {
    // Nothing is used twice: every generation brings as many new ones, so it is the number that fits.
    const scan = learned((each) => each.noteUse(usedOnce, 0))
    expect(scan.ageOfLeastRecent(16)).toBe(16)
    // Half is used again at once: it takes twice as long.
    const half = learned((each) => {
      for (let use = 0; use < 2; use++) each.noteUse(usedOnce, 0)
      each.noteReuse(usedOnce, 0, 0)
    })
    expect(half.ageOfLeastRecent(16)).toBe(32)
    expect(new ReuseModel().ageOfLeastRecent(16)).toBe(oldestAge)
  })

  it('forgets by and by', () => {
    const model = learned((each) => {
      for (let use = 0; use < 100; use++) each.noteUse(writtenOnce, 0)
    })
    const before = model.worthOf(writtenOnce, 0, 0)
    for (let time = 0; time < 40; time++) model.fade()
    model.learn()
    expect(model.worthOf(writtenOnce, 0, 0)).toBeGreaterThan(before)
    expect(model.worthOf(writtenOnce, 0, 0)).toBe(new ReuseModel().worthOf(writtenOnce, 0, 0))
  })
})

describe('the uses of chunks', () => {
  const useWords = () => {
    const words = new Int32Array(128)
    return {
      usesOf: (chunk: number) => words[chunk]!,
      setUses: (chunk: number, word: number) => {
        words[chunk] = word
      },
    }
  }

  it('say nothing new within a generation, and count as a first use for who came in for them', () => {
    const uses = new ChunkUses(useWords())
    for (let chunk = 4; chunk < 4 + 64; chunk++) expect(uses.enter(chunk, 1, chunk)).toBe(false)
    // The first use of all ends the first generation.
    uses.use(66)
    expect(uses.isKnown(4)).toBe(false)
    uses.use(4)
    expect(uses.isKnown(4)).toBe(true)
    // A generation is a sixteenth of 64 chunks.
    for (let chunk = 5; chunk < 10; chunk++) uses.use(chunk)
    expect(uses.isKnown(4)).toBe(false)
    uses.setCold(9, coldClean)
    expect(uses.isKnown(9)).toBe(false)
    uses.use(9)
    expect(uses.coldOf(9)).toBe(coldClean)
    uses.setCold(9, notCold)
    expect(uses.isKnown(9)).toBe(true)
  })

  it('know a chunk again that was evicted, and none that was given up', () => {
    const uses = new ChunkUses(useWords())
    for (let chunk = 4; chunk < 12; chunk++) {
      uses.enter(chunk, 1, chunk * 8)
      uses.use(chunk)
    }
    uses.leave(4, 1, 4 * 8, true)
    uses.leave(5, 1, 5 * 8, false)
    expect(uses.has(4)).toBe(false)
    expect(uses.enter(4, 1, 4 * 8)).toBe(true)
    expect(uses.enter(5, 1, 5 * 8)).toBe(false)
  })
})

describe('the order of eviction', () => {
  const make = (
    count: number,
    list: number,
    flags = 0,
    storeOf = (_: number): BackingStore | undefined => undefined,
  ) => {
    const chunks = new Chunks()
    const order = new EvictionOrder(chunks, storeOf)
    const made = Array.from({ length: count }, (_, first) => {
      const chunk = chunks.add(1, first, { order: 0, frame: first, flags })
      order.entered(chunk)
      order.used(chunk)
      chunks.removePin(chunk)
      chunks.moveTo(chunk, list)
      return chunk
    })
    return { chunks, order, made }
  }

  it('gives what was used longest ago first, where nothing else is known', () => {
    const { chunks, order, made } = make(8, cleanList)
    for (const chunk of made) {
      expect(order.takeClean(true)).toBe(chunk)
      order.leaving(chunk, true)
      chunks.remove(chunk)
    }
    expect(order.takeClean(true)).toBe(0)
    expect(order.coldCleanPages).toBe(0)
  })

  it('does not give what was used since it was picked, and finds it again later', () => {
    const { order, made } = make(8, cleanList)
    order.pickCold(3)
    expect(order.coldCleanPages).toBe(3)
    order.used(made[0]!)
    expect(order.coldCleanPages).toBe(2)
    const taken = [order.takeClean(true), order.takeClean(true)]
    expect(taken).toEqual([made[1], made[2]])
  })

  it('gives next what nobody wants any more, and then what was picked', () => {
    const { order, made } = make(8, cleanList)
    order.pickCold(2)
    order.unwanted(made[6]!)
    order.passed(made[5]!)
    expect([1, 2, 3].map(() => order.takeClean(true))).toEqual([made[5], made[6], made[0]])
  })

  it('looks at all chunks once when none may leave, and not again until one may', () => {
    const { chunks, order, made } = make(5000, dirtyList, dirty)
    expect(order.takeClean(true)).toBe(0)
    let looks = 0
    const listUnless = chunks.listUnless.bind(chunks)
    chunks.listUnless = (chunk: number, flags: number) => {
      looks++
      return listUnless(chunk, flags)
    }
    for (let claim = 0; claim < 100; claim++) expect(order.takeClean(true)).toBe(0)
    expect(looks).toBe(0)
    chunks.clearFlags(made[77]!, dirty)
    chunks.moveTo(made[77]!, cleanList)
    order.mayLeave(made[77]!)
    expect(order.takeClean(true)).toBe(made[77])
  })

  it('picks what another backup can store while the one of colder chunks fails [B12]', () => {
    const [failing, well] = [new BackingStore(memoryBackup()), new BackingStore(memoryBackup())]
    const first = new Set<number>()
    const { chunks, order, made } = make(7, dirtyList, dirty, (chunk) => {
      expect(chunks.ownerOf(chunk), 'asked of a chunk that is gone').not.toBe(0)
      return first.has(chunk) ? failing : well
    })
    for (const chunk of made.slice(0, 3)) first.add(chunk)
    const gone = made.pop()!
    order.leaving(gone, false)
    chunks.remove(gone)
    failing.noteFailure(new Error('no'), 1)
    order.leaveAlone(failing)
    const mayCall = (store: BackingStore) => store.backoffMs === 0
    order.pickCold(1)
    expect(order.storeOfDirty(mayCall)).toBe(well)
    expect(order.takeDirty(well, 1)).toBe(made[3])
    // It may be called again: its chunks are the coldest.
    failing.noteSuccess()
    order.lookAgain()
    order.pickCold(1)
    expect(order.storeOfDirty(mayCall)).toBe(failing)
    expect(order.takeDirty(failing, 1)).toBe(made[0])
  })

  it('tells how much memory it takes: at most 8 bytes a chunk for those that left', () => {
    const { chunks, order } = make(4096, cleanList)
    const before = order.metadataBytes
    expect(before).toBeLessThan(1024)
    for (let left = 0; left < 1000; left++) {
      const chunk = order.takeClean(true)
      order.leaving(chunk, true)
      chunks.remove(chunk)
    }
    expect(order.metadataBytes).toBeGreaterThan(before)
    // And a little to look at many of them at once.
    expect(order.metadataBytes - before).toBeLessThan(8.5 * 4096 + 1024)
  })

  it('costs few looks for each chunk that leaves, however many there are', () => {
    const looksFor = (count: number) => {
      const { chunks, order } = make(count, cleanList)
      let looks = 0
      const copyUses = chunks.copyUses.bind(chunks)
      chunks.copyUses = (first, many, wanted, into) => {
        looks += many
        copyUses(first, many, wanted, into)
      }
      for (let taken = 0; taken < count / 4; taken++) {
        const chunk = order.takeClean(true)
        order.leaving(chunk, true)
        chunks.remove(chunk)
      }
      return looks / (count / 4)
    }
    expect(looksFor(2000)).toBeGreaterThan(1)
    expect(looksFor(20_000)).toBeLessThan(1.5 * looksFor(2000))
  })
})

/** Hits of the pool on a trace, and of keeping what was used last, after the first accesses. */
async function hits(limitPages: number, accesses: Iterable<{ page: number; write?: boolean }>) {
  await using backup = nullBackup()
  await using pool = new Pool({
    limitBytes: limitPages * page,
    maxOrder: 0,
    backup,
    idleBytes: 0,
    background: false,
  })
  const buffer = await pool.allocate(32 * limitPages * page)
  await buffer.fill(1)
  await buffer.backup()
  const recent = new Map<number, boolean>()
  let [count, lru, lruStores, before] = [0, 0, 0, pool.stats()]
  const bytes = new Uint8Array(8)
  for (const { page: number, write = false } of accesses) {
    if (count++ === 5 * limitPages) {
      before = pool.stats()
      lru = 0
      lruStores = 0
    }
    const isDirty = recent.get(number)
    if (isDirty !== undefined) lru++
    recent.delete(number)
    recent.set(number, isDirty === true || write)
    if (recent.size > limitPages - 1) {
      const [oldest, wasDirty] = recent.entries().next().value!
      recent.delete(oldest)
      if (wasDirty) lruStores++
    }
    if (write) await buffer.write(number * page, bytes)
    else await buffer.read(number * page, bytes)
  }
  const after = pool.stats()
  const counted = count - 5 * limitPages
  return {
    pool: 1 - (after.restoredPages - before.restoredPages) / counted,
    lru: lru / counted,
    stores: after.backedUpPages - before.backedUpPages,
    lruStores,
  }
}

describe('hits of a pool, with seed 1', () => {
  const limit = 128
  const accesses = 30 * limit

  it('keep a set that is read beside pages that are written once', async () => {
    const random = new Random(1)
    const trace = Array.from({ length: accesses }, (_, index) =>
      index % 5 === 0 ? { page: limit + index / 5, write: true } : { page: random.below(limit / 2) },
    )
    const { pool, lru, stores, lruStores } = await hits(limit, trace)
    expect(pool).toBeGreaterThan(0.795)
    expect(pool).toBeGreaterThan(lru - 0.01)
    expect(stores).toBeLessThanOrEqual(1.05 * lruStores)
  })

  it('keep a set that is read beside a scan, which drives it out of an LRU', async () => {
    const random = new Random(1)
    const trace = Array.from({ length: accesses }, (_, index) => ({
      page: index % 2 === 0 ? limit + index / 2 : random.below(limit / 2),
    }))
    const { pool, lru } = await hits(limit, trace)
    expect(pool).toBeGreaterThan(0.48)
    expect(lru).toBeLessThan(0.4)
  })

  it('are more than half of the optimum on loops that do not fit', async () => {
    for (const length of [1.2 * limit, 2 * limit].map(Math.floor)) {
      const trace = Array.from({ length: accesses }, (_, index) => ({ page: (index * 7) % length }))
      const { pool, lru } = await hits(limit, trace)
      expect(lru).toBe(0)
      expect(pool).toBeGreaterThan((0.8 * (limit - 1)) / (length - 1))
    }
  })

  it('follow a set that moves, as an LRU does', async () => {
    const random = new Random(1)
    const trace = Array.from({ length: accesses }, (_, index) => ({
      page: Math.floor(index / (8 * limit)) * limit + random.below(0.4 * limit),
    }))
    const { pool, lru } = await hits(limit, trace)
    expect(pool).toBeGreaterThan(lru - 0.01)
  })

  it('are those of a fit where everything fits', async () => {
    const trace = Array.from({ length: accesses }, (_, index) => ({
      page: ((index * 7) % (0.9 * limit)) >>> 0,
    }))
    expect((await hits(limit, trace)).pool).toBe(1)
  })

  it('do not depend on where pages are stored: dirty ones of one backup leave beside clean ones of another', async () => {
    await using one = memoryBackup()
    await using other = memoryBackup()
    await using pool = new Pool({ limitBytes: 64 * page, maxOrder: 0, backup: one, background: false })
    const written = await pool.allocate(256 * page)
    const read = await pool.allocate(32 * page, { backup: other })
    await read.fill(2)
    await read.backup()
    const random = new Random(1)
    for (let index = 0; index < 4000; index++) {
      if (index === 2000) expect(await read.backup()).toBeDefined()
      if (index % 4 === 0)
        await written.write(((index / 4) % 256) * page, new Uint8Array(page).fill(index & 255))
      else await read.read(random.below(32) * page, new Uint8Array(8))
    }
    expect(pool.verify()).toEqual([])
    expect(pool.stats().restoredPages).toBeLessThan(200)
    const found = new Uint8Array(page)
    for (let index = 4000 - 4 * 256; index < 4000; index += 4) {
      await written.read(((index / 4) % 256) * page, found)
      expect(found[0]).toBe(index & 255)
    }
  })
})
