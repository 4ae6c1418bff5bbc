/**
 * Maps numbers to numbers that rise with them: page 100 to 108 of one backup to handle 7 to 15 of another. What was mapped in
 * runs costs by the run, not by the page.
 *
 *   a segment of 1024 numbers ─▶ starts   0 │ 100 │ 300 │ 301        in order; each run ends where the next begins
 *                                targets  — │   7 │   — │ 512        a run of no target is a gap
 *
 * Segments without any target are forgotten. A run that is whole costs about 0.4 bytes for each of its numbers, a number on its own 16.
 */
export class RunMap {
  readonly #segments = new Map<number, Segment>()

  /** Maps `first + n` to `target + n`, for each n below `count`. What these numbers were mapped to before is forgotten. */
  set(first: number, count: number, target: number): void {
    this.#eachPart(first, count, (index, from, to, done) => {
      let segment = this.#segments.get(index)
      if (segment === undefined) {
        segment = { starts: [0], targets: [gap] }
        this.#segments.set(index, segment)
      }
      write(segment, from, to, target + done)
    })
  }

  delete(first: number, count: number): void {
    this.#eachPart(first, count, (index, from, to) => {
      const segment = this.#segments.get(index)
      if (segment === undefined) return
      write(segment, from, to, gap)
      if (segment.starts.length === 1 && segment.targets[0] === gap) this.#segments.delete(index)
    })
  }

  /** What a number is mapped to, or `undefined`. */
  targetOf(number: number): number | undefined {
    const segment = this.#segments.get(Math.floor(number / segmentNumbers))
    if (segment === undefined) return undefined
    const offset = number % segmentNumbers
    const run = runAt(segment, offset)
    const target = segment.targets[run]
    return target === gap ? undefined : target + offset - segment.starts[run]
  }

  /** How many numbers from `first` on, at most `count`, have targets that rise with them. 0 when the first has none. */
  lengthFrom(first: number, count: number): number {
    const target = this.targetOf(first)
    if (target === undefined) return 0
    let length = 0
    while (length < count && this.targetOf(first + length) === target + length) {
      length = Math.min(count, length + this.#restOfRun(first + length))
    }
    return length
  }

  /** How many numbers from `first` on, at most `count`, are mapped to nothing. */
  gapFrom(first: number, count: number): number {
    let length = 0
    while (length < count && this.targetOf(first + length) === undefined) {
      length = Math.min(count, length + this.#restOfRun(first + length))
    }
    return length
  }

  /** Forgets everything. */
  clear(): void {
    this.#segments.clear()
  }

  /** Bytes of bookkeeping, as far as they can be told. */
  get metadataBytes(): number {
    let bytes = 0
    for (const { starts } of this.#segments.values()) bytes += 200 + starts.length * 16
    return bytes
  }

  /** Numbers from this one to the end of its run, or gap, in its segment. */
  #restOfRun(number: number): number {
    const segment = this.#segments.get(Math.floor(number / segmentNumbers))
    const offset = number % segmentNumbers
    return (segment?.starts[runAt(segment, offset) + 1] ?? segmentNumbers) - offset
  }

  #eachPart(
    first: number,
    count: number,
    visit: (segment: number, from: number, to: number, done: number) => void,
  ): void {
    for (let done = 0; done < count; ) {
      const from = (first + done) % segmentNumbers
      const to = Math.min(segmentNumbers, from + count - done)
      visit(Math.floor((first + done) / segmentNumbers), from, to, done)
      done += to - from
    }
  }
}

interface Segment {
  readonly starts: number[]
  readonly targets: number[]
}

const segmentNumbers = 1024
const gap = -1

/** The run that holds an offset: the last one that begins at or before it. */
function runAt({ starts }: Segment, offset: number): number {
  let low = 0
  let high = starts.length - 1
  while (low < high) {
    const middle = (low + high + 1) >>> 1
    if (starts[middle] <= offset) low = middle
    else high = middle - 1
  }
  return low
}

/** The target of an offset, or `gap`. */
function targetAt({ starts, targets }: Segment, run: number, offset: number): number {
  return targets[run] === gap ? gap : targets[run] + offset - starts[run]
}

/** Makes `from` to `to` one run of this target, cuts those around it, and joins it with them where they go on. */
function write(segment: Segment, from: number, to: number, target: number): void {
  const { starts, targets } = segment
  const firstRun = runAt(segment, from)
  const lastRun = runAt(segment, to - 1)
  const newStarts: number[] = []
  const newTargets: number[] = []
  const append = (start: number, value: number): void => {
    const last = newStarts.length - 1
    const goesOn =
      last >= 0 &&
      (value === gap
        ? newTargets[last] === gap
        : newTargets[last] !== gap && newTargets[last] + start - newStarts[last] === value)
    if (goesOn) return
    newStarts.push(start)
    newTargets.push(value)
  }
  const before = firstRun > 0 ? firstRun - 1 : 0
  for (let run = before; run < firstRun; run++) append(starts[run], targets[run])
  if (starts[firstRun] < from) append(starts[firstRun], targets[firstRun])
  append(from, target)
  const end = starts[lastRun + 1] ?? segmentNumbers
  if (to < end) append(to, targetAt(segment, lastRun, to))
  const after = Math.min(lastRun + 2, starts.length)
  for (let run = lastRun + 1; run < after; run++) append(starts[run], targets[run])
  starts.splice(before, after - before, ...newStarts)
  targets.splice(before, after - before, ...newTargets)
}
