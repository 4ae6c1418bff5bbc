/** Ages are counted in generations up to this; what is older is as old. */
export const oldestAge = 1023
/** Intervals of chunks that were used only once, and came in by a read or by a write. */
export const usedOnce = 0
export const writtenOnce = 4
/** Uses are counted up to this. */
export const mostUses = 7
/** Intervals have so many bits. */
const intervalBits = 8
/** A typical interval is at least this. */
const leastInterval = 8

/**
 * Learns how soon chunks are used again, and says from it what keeping one is worth.
 *
 * Chunks are sorted into kinds by their typical interval between uses. For each kind there is a histogram of the ages at
 * which such chunks were used again, counted on hits, and on chunks that came back soon after they were evicted. The worth
 * of a chunk is the best ratio, over all spans of time from its age on, of the uses to be expected to the time for which it
 * will take up memory until then or until it is used (the Gittins index of a renewal process). So a loop keeps what
 * comes next, a scan keeps nothing, and frequent chunks stay longer than rare ones, without a rule for any of these.
 *
 * Counts fade, so what was learned follows the load. Tables have a fixed size: nothing here grows with the pool.
 */
export class ReuseModel {
  /** By kind and age: 0 is worth least. */
  readonly #worth = new Uint8Array(kindCount << bucketBits)
  /** By kind: uses that made a chunk one of this kind. */
  readonly #uses = new Float64Array(kindCount)
  /** By kind and age: such chunks that were used again at that age. */
  readonly #reuses = new Float64Array(kindCount << bucketBits)
  /** By kind: whether anything was counted since it was last learned. */
  readonly #isStale = new Uint8Array(kindCount).fill(1)

  constructor() {
    this.learn()
  }

  /** What keeping a chunk is worth, from 0 to 255: its typical interval, its uses, and its age in generations. */
  worthOf(interval: number, uses: number, age: number): number {
    return this.#worth[(kindOf(interval, uses) << bucketBits) | bucketOfAge[age]!]!
  }

  /** A use made a chunk one of this interval and number of uses. */
  noteUse(interval: number, uses: number): void {
    const kind = kindOf(interval, uses)
    this.#uses[kind]!++
    this.#isStale[kind] = 1
  }

  /** That use was none after all. */
  takeBack(interval: number, uses: number): void {
    const kind = kindOf(interval, uses)
    this.#uses[kind] = Math.max(0, this.#uses[kind]! - 1)
    this.#isStale[kind] = 1
  }

  /** A chunk that was of this interval and number of uses was used again at this age. */
  noteReuse(interval: number, uses: number, age: number): void {
    const kind = kindOf(interval, uses)
    this.#reuses[(kind << bucketBits) | bucketOfAge[age]!]!++
    this.#isStale[kind] = 1
  }

  /** Works out what chunks are worth from what was counted. */
  learn(): void {
    for (let kind = 0; kind < kindCount; kind++) {
      if (this.#isStale[kind] === 1) this.#learnKind(kind)
      this.#isStale[kind] = 0
    }
  }

  /** Counts weigh less from now on. */
  fade(): void {
    for (let index = 0; index < this.#reuses.length; index++) this.#reuses[index]! *= fading
    for (let kind = 0; kind < kindCount; kind++) this.#uses[kind]! *= fading
    this.#isStale.fill(1)
  }

  /**
   * The age at which a memory would evict that keeps what was used last, when so many times the uses of one generation
   * fit: as many different chunks were used since (from the share of uses that are not followed by another, summed over ages).
   */
  ageOfLeastRecent(generations: number): number {
    let uses = 0
    for (let kind = 0; kind < kindCount; kind++) uses += this.#uses[kind]!
    if (uses === 0) return oldestAge
    let [again, distinct, age] = [0, 0, 0]
    for (let bucket = 0; bucket < bucketCount; bucket++) {
      for (let kind = 0; kind < kindCount; kind++) again += this.#reuses[(kind << bucketBits) | bucket]!
      const share = Math.max(0, 1 - again / uses)
      const width = widthOfBucket[bucket]!
      if (distinct + share * width >= generations) return Math.floor(age + (generations - distinct) / share)
      distinct += share * width
      age += width
    }
    return oldestAge
  }

  #learnKind(kind: number): void {
    const at = kind << bucketBits
    const total = this.#uses[kind]! + priorUses
    let left = total
    for (let bucket = 0; bucket < bucketCount; bucket++) {
      spanUses[bucket] = this.#reuses[at + bucket]! + priorReuses[at + bucket]!
      const after = Math.max(0, left - spanUses[bucket]!)
      // Never 0: where nobody is left, a single late use must not count as a certain one.
      spanTime[bucket] = ((left + after) / 2) * widthOfBucket[bucket]! + 0.001 * total
      left = after
    }
    // From the oldest on, neighbours are joined to spans of ages whose ratios of uses to time fall. So the span that begins with
    // an age has the best ratio of all that do.
    let spans = bucketCount
    for (let bucket = bucketCount - 1; bucket >= 0; bucket--) {
      let [uses, time] = [spanUses[bucket]!, spanTime[bucket]!]
      while (spans < bucketCount && spanUses[spans]! * time > uses * spanTime[spans]!) {
        uses += spanUses[spans]!
        time += spanTime[spans++]!
      }
      spanUses[--spans] = uses
      spanTime[spans] = time
      // Eighths of an octave: 0 is less than one use in a million generations.
      this.#worth[at + bucket] = Math.max(
        0,
        Math.min(255, Math.round(160 + 8 * Math.log2(uses / time + 1e-9))),
      )
    }
  }
}

/** The typical interval of a chunk after a use at this age; weighs the last eight uses alike, then fades older ones. */
export function intervalAfter(interval: number, uses: number, age: number): number {
  const log = logOfAge[age]!
  if (interval < leastInterval) return log
  return Math.max(leastInterval, interval + Math.round((log - interval) / (uses + 1)))
}

/** Used once and read, used once and written; then one for each octave of intervals, few uses and many apart. */
const onceKinds = 2
const octaveCount = 11
const kindCount = onceKinds + 2 * octaveCount
const bucketBits = 6
const bucketCount = 48
/** What is left of a count each time. */
const fading = 0.75

/** The kind of a chunk by its uses and its interval: a table, since it is looked up for each chunk that might be evicted. */
const kindByUse = new Uint8Array((mostUses + 1) << intervalBits)
for (let uses = 0; uses <= mostUses; uses++) {
  for (let interval = 0; interval < 1 << intervalBits; interval++) {
    const octave = Math.min(octaveCount - 1, interval >>> 4)
    kindByUse[(uses << intervalBits) | interval] =
      interval < leastInterval ? interval >>> 2 : onceKinds + (octave << 1) + (uses >= 3 ? 1 : 0)
  }
}

function kindOf(interval: number, uses: number): number {
  return kindByUse[(uses << intervalBits) | interval]!
}

// Ages below 16 have a bucket each, then there are four to an octave.
const singleBuckets = 16
const bucketOfAge = Uint8Array.from({ length: oldestAge + 1 }, (_, age) =>
  age < singleBuckets
    ? age
    : Math.min(bucketCount - 1, singleBuckets + Math.floor(4 * Math.log2(age / singleBuckets))),
)
const widthOfBucket = new Float64Array(bucketCount)
for (const bucket of bucketOfAge) widthOfBucket[bucket]!++

/** The logarithm of an age, in sixteenths of an octave, from 9 to 160: an interval. */
const logOfAge = Uint8Array.from({ length: oldestAge + 1 }, (_, age) =>
  Math.round(16 * Math.log2(1 + Math.max(age, 0.5))),
)

// What is taken for counted before anything is: uses at random, with the typical interval as their mean.
const priorUses = 32
const priorReuses = new Float64Array(kindCount << bucketBits)
for (let kind = 0; kind < kindCount; kind++) {
  const [share, mean] = kind < onceKinds ? [0.4, 64] : [0.9, 2 ** (((kind - onceKinds) >> 1) + 0.5) - 1]
  let age = 0
  for (let bucket = 0; bucket < bucketCount; bucket++) {
    const end = age + widthOfBucket[bucket]!
    priorReuses[(kind << bucketBits) | bucket] =
      priorUses * share * (Math.exp(-age / mean) - Math.exp(-end / mean))
    age = end
  }
}

// Scratch of `learn`: of each bucket, and then, at the end, of each span.
const spanUses = new Float64Array(bucketCount)
const spanTime = new Float64Array(bucketCount)
