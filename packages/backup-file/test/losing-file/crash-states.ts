import { seededRandom } from '@spillway/core'
import { type FileContent, sectorBytes } from './file-content.ts'
import { applyChange, type Change, type LogEntry } from './losing-file.ts'

export interface CrashState {
  readonly content: FileContent
  /** Entries of the log before the crash. */
  readonly at: number
  /** The marks among them, in order. States between two marks have the same list. */
  readonly marks: readonly unknown[]
  /** What was lost, in words. */
  describe(): string
}

export interface CrashOptions {
  /** Of what is chosen at random; print it when a state is wrong. */
  readonly seed: number
  /** Which writes may also be there in part, in sectors of 512 bytes. Default: all. */
  readonly mayTear?: (write: Change & { readonly kind: 'write' }) => boolean
  /** Up to so many changes that may be lost, all subsets of them are. Default 12. */
  readonly allSubsetsUpTo?: number
  /** Choices at random, where not all are made. Default 8. */
  readonly randomChoices?: number
  /** Only crashes after at least so many entries of the log. Default 0. */
  readonly from?: number
}

/** A change after the last one that is folded into the durable content. */
interface Tail {
  readonly change: Change
  /** `'lost'` is one that a sync failed to make durable: it may be there or not, whatever is synced later. */
  fate: 'pending' | 'durable' | 'lost'
}

/** Says of each losable change whether it is there; a list of sectors for a write that is there in part. */
type Choice = readonly (boolean | readonly boolean[])[]

/**
 * What may be found after a crash, for every prefix of the log: of what was not durable any subset, and torn writes. Subsets that leave
 * the last change out are those of the prefix before, and do not come again unless something was marked since.
 */
export function* crashStates(
  start: FileContent,
  log: readonly LogEntry[],
  options: CrashOptions,
): Generator<CrashState> {
  const durable = start.copy()
  const tail: Tail[] = []
  let marks: readonly unknown[] = []
  const choices = new Choices(options)
  for (let at = 0; at <= log.length; at++) {
    const entry = at === 0 ? undefined : log[at - 1]
    if (entry?.kind === 'mark') marks = [...marks, entry.value]
    else if (entry !== undefined) follow(entry, durable, tail)
    if (at < (options.from ?? 0)) continue
    const losable = tail.filter(({ fate }) => fate !== 'durable').map(({ change }) => change)
    const isChange = entry !== undefined && entry.kind !== 'mark' && entry.kind !== 'sync'
    for (const choice of choices.of(losable, isChange)) {
      const content = durable.copy()
      let next = 0
      for (const { change, fate } of tail) {
        const part = fate === 'durable' || choice[next++]!
        if (part === true) applyChange(content, change)
        else if (part !== false && change.kind === 'write')
          content.write(change.bytes, change.offsetBytes, part)
      }
      yield { content, at, marks, describe: () => describe(at, log.length, losable, choice) }
    }
  }
}

function follow(entry: Exclude<LogEntry, { kind: 'mark' }>, durable: FileContent, tail: Tail[]): void {
  if (entry.kind !== 'sync') tail.push({ change: entry, fate: 'pending' })
  else {
    const covered = new Set(entry.covers)
    for (const one of tail) {
      if (one.fate === 'pending' && covered.has(one.change)) one.fate = entry.hasFailed ? 'lost' : 'durable'
    }
    while (tail[0]?.fate === 'durable') applyChange(durable, tail.shift()!.change)
  }
}

class Choices {
  readonly #options: CrashOptions
  readonly #random: () => number

  constructor(options: CrashOptions) {
    this.#options = options
    this.#random = seededRandom(options.seed)
  }

  *of(losable: readonly Change[], hasLast: boolean): Generator<Choice> {
    for (const choice of this.#wholes(losable.length)) {
      if (!hasLast || choice.at(-1) === true) yield choice
    }
    const sectorCounts = losable.map((change) => this.#tearableSectors(change))
    for (const [index, sectorCount] of sectorCounts.entries()) {
      for (const sectors of this.#tears(sectorCount)) {
        for (const others of this.#others(sectorCounts)) yield others.with(index, sectors)
      }
    }
  }

  /** 1 for what is there whole or not at all. */
  #tearableSectors(change: Change): number {
    const { mayTear = () => true } = this.#options
    if (change.kind !== 'write' || !mayTear(change)) return 1
    return Math.ceil(change.bytes.byteLength / sectorBytes)
  }

  /** Each change is there or is not. */
  *#wholes(count: number): Generator<boolean[]> {
    const { allSubsetsUpTo = 12 } = this.#options
    if (count > allSubsetsUpTo) yield* this.#some(count)
    else {
      for (let subset = 0; subset < 2 ** count; subset++)
        yield Array.from({ length: count }, (_, index) => Math.floor(subset / 2 ** index) % 2 === 1)
    }
  }

  /** None, all, each one lost, each one kept, and some at random. */
  *#some(count: number): Generator<boolean[]> {
    const { randomChoices = 8 } = this.#options
    yield Array<boolean>(count).fill(false)
    yield Array<boolean>(count).fill(true)
    for (let index = 0; index < count; index++) {
      yield Array<boolean>(count).fill(true).with(index, false)
      yield Array<boolean>(count).fill(false).with(index, true)
    }
    for (let choice = 0; choice < randomChoices; choice++) yield this.#randomChoice(count)
  }

  /** The ways in which a write of so many sectors is torn. */
  *#tears(sectors: number): Generator<boolean[]> {
    if (sectors < 2) return
    if (sectors <= 4) {
      for (const choice of this.#wholes(sectors)) if (new Set(choice).size > 1) yield choice
      return
    }
    // A write goes forwards or backwards to any sector; a long one, to some of them.
    const step = Math.max(1, Math.floor(sectors / 8))
    for (let there = 1; there < sectors; there += step) {
      yield Array.from({ length: sectors }, (_, sector) => sector < there)
      yield Array.from({ length: sectors }, (_, sector) => sector >= there)
    }
    for (let sector = 1; sector < sectors - 1; sector += step) {
      yield Array<boolean>(sectors).fill(true).with(sector, false)
      yield Array<boolean>(sectors).fill(false).with(sector, true)
    }
    yield this.#randomChoice(sectors)
  }

  /** What becomes of the other changes while one is torn: some of them may be torn, too. */
  *#others(sectorCounts: readonly number[]): Generator<Choice> {
    yield sectorCounts.map(() => true)
    if (sectorCounts.length === 1) return
    yield sectorCounts.map(() => false)
    for (let choice = 0; choice < 2; choice++) {
      yield sectorCounts.map((sectors) => {
        const isTorn = sectors > 1 && this.#random() < 0.5
        return isTorn ? this.#randomChoice(sectors) : this.#random() < 0.5
      })
    }
  }

  #randomChoice(count: number): boolean[] {
    return Array.from({ length: count }, () => this.#random() < 0.5)
  }
}

function describe(at: number, entries: number, losable: readonly Change[], choice: Choice): string {
  const lost: string[] = []
  for (const [index, change] of losable.entries()) {
    const part = choice[index]!
    if (part === true) continue
    const where = change.kind === 'truncate' ? `to ${change.lengthBytes}` : `at ${change.offsetBytes}`
    const how = part === false ? 'lost' : `torn to ${part.map((isThere) => (isThere ? 1 : 0)).join('')}`
    lost.push(`${change.kind} ${where} ${how}`)
  }
  return `after ${at} of ${entries} steps, of ${losable.length} not durable: ${lost.join(', ') || 'none lost'}`
}
