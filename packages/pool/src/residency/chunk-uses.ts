import { Ghosts, type Remembered } from './ghosts.ts'
import { intervalAfter, mostUses, oldestAge, ReuseModel, usedOnce, writtenOnce } from './reuse-model.ts'

/** Where a chunk is on its way out, if it is. */
export const notCold = 0
export const coldClean = 1
export const coldDirty = 2
export const coldBusy = 3
export const coldPurgeable = 4

/**
 * When and how often each chunk was used, a word in its record, and what keeping it is worth.
 *
 *   word   generation of the last use (12 bits) · typical interval (8) · uses (3) · cold (3) · awaited · is there · stamp (4)
 *
 * Time is counted in uses: a generation lasts until as many chunks were used as a sixteenth of those that are there, where
 * only the first use of a chunk in a generation counts. So what a use costs does not depend on how many chunks there are, and
 * many uses of the same few chunks make no other one older.
 *
 * Worth is learned from ages at which chunks are used again (`ReuseModel`). After a sudden change what was learned is wrong
 * for a while. So it is compared with evicting the least recently used: hits on chunks that this would have lost count for
 * what was learned, chunks that come back and that this would still have count against it; while more speaks against it
 * than for it, a chunk is worth less the older it is, and nothing else counts.
 */
export class ChunkUses {
  readonly #records: UseRecords
  readonly #model = new ReuseModel()
  readonly #ghosts = new Ghosts()
  #count = 0
  #generation = 0
  /** Uses until the next generation, until the model learns, and until its counts fade. */
  #usesLeft = 1
  #usesUntilLearning = leastUsesToLearn
  #usesUntilFading = leastUsesToFade
  /** The age at which the least recently used would be evicted. */
  #ageOfLeastRecent = oldestAge
  /** Of late: hits on chunks that are older than that, and chunks that came back and are younger. */
  #hitsOnOld = 0
  #missesOfYoung = 0
  #byAgeOnly = false
  readonly #remembered: Remembered = { generation: 0, interval: 0, uses: 0 }

  constructor(records: UseRecords) {
    this.#records = records
  }

  /** Bytes beside the records. */
  get metadataBytes(): number {
    return this.#ghosts.metadataBytes
  }

  /** A chunk comes into memory, and is awaited until its first use. Says whether it would have stayed with twice the memory. */
  enter(chunk: number, buffer: number, firstPage: number): boolean {
    this.#count++
    const isBack = this.#ghosts.take(buffer, firstPage, this.#generation)
    let [interval, uses, isRefault] = [usedOnce, 0, false]
    if (isBack) {
      const { found } = this.#ghosts
      const age = Math.min(oldestAge, this.#generation - found.generation)
      this.#model.noteReuse(found.interval, found.uses, age)
      if (age < this.#ageOfLeastRecent) this.#missesOfYoung++
      isRefault = age < 2 * generationsPerPool
      interval = intervalAfter(found.interval, found.uses, age)
      uses = Math.min(found.uses + 1, mostUses)
    }
    this.#records.setUses(
      chunk,
      (this.#records.usesOf(chunk) & stamps) |
        isThere |
        awaited |
        (uses << usesShift) |
        (interval << intervalShift) |
        (this.#generation & generationMask),
    )
    return isRefault
  }

  /** Whether there is such a chunk. */
  has(chunk: number): boolean {
    return (this.#records.usesOf(chunk) & isThere) !== 0
  }

  /** Another chunk takes the place of a part of one: it is as old, and as often used. */
  enterLike(chunk: number, whole: number): void {
    this.#count++
    this.#records.setUses(
      chunk,
      (this.#records.usesOf(chunk) & stamps) |
        (this.#records.usesOf(whole) & ~((coldMask << coldShift) | stamps)),
    )
  }

  /** Whether a use of the chunk says nothing new: it was used in this generation, and is neither cold nor awaited. */
  isKnown(chunk: number): boolean {
    return (this.#records.usesOf(chunk) & (generationMask | aside)) === (this.#generation & generationMask)
  }

  /** A chunk was used. */
  use(chunk: number): void {
    const word = this.#records.usesOf(chunk)
    const before = (word >>> intervalShift) & intervalMask
    const uses = (word >>> usesShift) & mostUses
    if ((word & awaited) !== 0) {
      // It came in for this one.
      this.#noteUse(chunk, before, uses)
      return
    }
    const age = this.#ageOf(word)
    this.#model.noteReuse(before, uses, age)
    if (age > this.#ageOfLeastRecent) this.#hitsOnOld++
    this.#noteUse(chunk, intervalAfter(before, uses, age), Math.min(uses + 1, mostUses))
  }

  /** A chunk that came in was written to. What is written once is often not read at all, so it is a kind of its own. */
  write(chunk: number): void {
    const word = this.#records.usesOf(chunk)
    if (((word >>> intervalShift) & intervalMask) !== usedOnce || this.#ageOf(word) > 0) return
    this.#model.takeBack(usedOnce, 0)
    this.#model.noteUse(writtenOnce, 0)
    this.#records.setUses(chunk, word | (writtenOnce << intervalShift))
  }

  /** A chunk leaves memory; `remembers` says whether it may be wanted again. */
  leave(chunk: number, buffer: number, firstPage: number, remembers: boolean): void {
    const word = this.#records.usesOf(chunk)
    this.#records.setUses(chunk, word & stamps)
    if (remembers && (word & awaited) === 0) {
      this.#ghosts.grow(ghostsPerChunk * this.#count)
      const remembered = this.#remembered
      remembered.generation = this.#generation - this.#ageOf(word)
      remembered.interval = (word >>> intervalShift) & intervalMask
      remembered.uses = (word >>> usesShift) & mostUses
      this.#ghosts.remember(buffer, firstPage, remembered)
    }
    this.#count--
  }

  /** `notCold`, or where the chunk is on its way out. */
  coldOf(chunk: number): number {
    return (this.#records.usesOf(chunk) >>> coldShift) & coldMask
  }

  /** A chunk gets on its way out, or off it; what was an `entryOf` it is none any more. */
  setCold(chunk: number, cold: number): void {
    const word = this.#records.usesOf(chunk)
    const stamp = ((word >>> stampShift) + 1) & stampMask
    this.#records.setUses(
      chunk,
      (word & ~((coldMask << coldShift) | (stampMask << stampShift))) |
        (cold << coldShift) |
        (stamp << stampShift),
    )
  }

  /** What stands for a chunk in a queue for as long as it is where it is on its way out. */
  entryOf(chunk: number): number {
    return (this.#records.usesOf(chunk) >>> stampShift) * 2 ** 32 + chunk
  }

  /** Whether an entry stands for its chunk still, which is `cold`. */
  isCurrent(entry: number, cold: number): boolean {
    const word = this.#records.usesOf(entry % 2 ** 32)
    const stamp = Math.floor(entry / 2 ** 32)
    return word >>> stampShift === stamp && ((word >>> coldShift) & coldMask) === cold
  }

  /** What keeping a chunk is worth, and among equals how young it is: one number that grows with both. */
  rankOf(chunk: number): number {
    return this.worthOf(chunk) * (oldestAge + 1) + oldestAge - this.#ageOf(this.#records.usesOf(chunk))
  }

  /** What keeping a chunk is worth, from 0 to 255. */
  worthOf(chunk: number): number {
    return this.#worthOf(this.#records.usesOf(chunk))
  }

  /** The same of words of many chunks, from `at` on, or `noWorth` where there is no such chunk, or it is on its way out already. */
  worthsOf(words: Int32Array, count: number, worths: Int16Array, at: number): void {
    for (let index = 0; index < count; index++) {
      const word = words[index]!
      worths[at + index] = (word & warmth) === isThere ? this.#worthOf(word) : noWorth
    }
  }

  #worthOf(word: number): number {
    const age = this.#ageOf(word)
    // Whoever it came in for uses it soon, or never.
    if ((word & awaited) !== 0) return age < generationsPerPool ? mostWorth : 0
    if (this.#byAgeOnly) return mostWorth - (age >>> 2)
    return this.#model.worthOf((word >>> intervalShift) & intervalMask, (word >>> usesShift) & mostUses, age)
  }

  #ageOf(word: number): number {
    return Math.min(oldestAge, (this.#generation - word) & generationMask)
  }

  #noteUse(chunk: number, interval: number, uses: number): void {
    this.#model.noteUse(interval, uses)
    this.#records.setUses(
      chunk,
      (this.#records.usesOf(chunk) & ((coldMask << coldShift) | stamps)) |
        isThere |
        (uses << usesShift) |
        (interval << intervalShift) |
        (this.#generation & generationMask),
    )
    if (--this.#usesLeft <= 0) this.#nextGeneration()
  }

  #nextGeneration(): void {
    const length = Math.max(1, Math.floor(this.#count / generationsPerPool))
    this.#usesLeft = length
    this.#generation++
    if (this.#generation % generationsPerJudgement === 0) this.#judge(length)
    this.#usesUntilFading -= length
    this.#usesUntilLearning -= length
    if (this.#usesUntilLearning > 0) return
    this.#usesUntilLearning = Math.max(leastUsesToLearn, this.#count >>> 2)
    this.#model.learn()
    this.#ageOfLeastRecent = this.#model.ageOfLeastRecent(generationsPerPool)
    if (this.#usesUntilFading > 0) return
    this.#usesUntilFading = Math.max(leastUsesToFade, this.#count * 4)
    this.#model.fade()
  }

  #judge(generationLength: number): void {
    this.#byAgeOnly = this.#missesOfYoung > this.#hitsOnOld + generationLength / 4
    this.#missesOfYoung /= 2
    this.#hitsOnOld /= 2
  }
}

/** Where the word of each chunk is kept; it stays when the chunk is gone. */
export interface UseRecords {
  usesOf(chunk: number): number
  setUses(chunk: number, word: number): void
}

const generationsPerPool = 16
const generationsPerJudgement = 2
const ghostsPerChunk = 2
const leastUsesToLearn = 128
const leastUsesToFade = 2048
/** What a chunk is worth more that is expected to be used twice as soon. */
export const worthOfOctave = 8
/** What a chunk is worth at most. */
export const mostWorth = 255
/** Less than any chunk is worth: it is not asked. */
export const noWorth = -1

const generationMask = 0xfff
const intervalShift = 12
const intervalMask = 0xff
const usesShift = 20
const coldShift = 23
const coldMask = 7
const awaited = 1 << 26
const isThere = 1 << 27
const stampShift = 28
const stampMask = 15
const stamps = stampMask << stampShift
/** Bits that tell chunks that are there and not cold. */
const warmth = isThere | (coldMask << coldShift)
/** Bits that make every use one that has to be noted. */
const aside = (coldMask << coldShift) | awaited
