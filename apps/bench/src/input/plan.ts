import { readFileSync, writeFileSync } from 'node:fs'
import type { InputFile } from './files.ts'

/**
 * How real files become the data of a run: one after the other, then all of them again with another salt, until there
 * is enough. The result is cut into buffers of one size, as an archive would be.
 *
 *   position  0                          distinctBytes                    2 × distinctBytes        dataBytes
 *             │ file 0 │ file 1 │ … │ f. n │ file 0 │ file 1 │ … │ file n │ file 0 │ … (cut off)   │
 *   buffers   │ buffer 0     │ buffer 1     │ buffer 2     │ …                                    │
 *
 * An *item* is one copy of one file. Positions are bytes from the start of the data.
 */
export interface InputPlan {
  readonly files: readonly InputFile[]
  /** Bytes of all files, once. */
  readonly distinctBytes: number
  /** Bytes of the whole data: a whole number of buffers. */
  readonly dataBytes: number
  readonly bufferBytes: number
  /** Salts and draws come from it. */
  readonly seed: number
}

export interface InputPlanWish {
  readonly files: readonly InputFile[]
  readonly wantedBytes: number
  readonly bufferBytes: number
  readonly seed: number
}

/** Plans at least `wantedBytes` of data, rounded up to whole buffers. */
export function planInput({ files, wantedBytes, bufferBytes, seed }: InputPlanWish): InputPlan {
  const dataBytes = Math.ceil(wantedBytes / bufferBytes) * bufferBytes
  const used: InputFile[] = []
  let distinctBytes = 0
  for (const file of files) {
    if (distinctBytes >= dataBytes) break
    used.push(file)
    distinctBytes += file.lengthBytes
  }
  return { files: used, distinctBytes, dataBytes, bufferBytes, seed }
}

export function savePlan(path: string, plan: InputPlan): void {
  writeFileSync(path, JSON.stringify(plan), { mode: 0o600 })
}

export function loadPlan(path: string): InputPlan {
  return JSON.parse(readFileSync(path, 'utf8')) as InputPlan
}

/** Where each item lies, computed from a plan; nothing is stored per copy. */
export class ItemLayout {
  readonly plan: InputPlan
  /** How many items the data holds, the one that is cut off included. */
  readonly itemCount: number
  readonly #starts: Float64Array

  constructor(plan: InputPlan) {
    this.plan = plan
    this.#starts = new Float64Array(plan.files.length + 1)
    for (const [index, file] of plan.files.entries()) {
      this.#starts[index + 1] = this.#starts[index] + file.lengthBytes
    }
    this.itemCount = this.itemAt(plan.dataBytes - 1) + 1
  }

  /** The item that the byte at `position` belongs to. */
  itemAt(position: number): number {
    const copy = Math.floor(position / this.plan.distinctBytes)
    const within = position - copy * this.plan.distinctBytes
    let low = 0
    let high = this.plan.files.length - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if (this.#starts[middle] <= within) low = middle
      else high = middle - 1
    }
    return copy * this.plan.files.length + low
  }

  fileOf(item: number): InputFile {
    return this.plan.files[item % this.plan.files.length]
  }

  startOf(item: number): number {
    const copy = Math.floor(item / this.plan.files.length)
    return copy * this.plan.distinctBytes + this.#starts[item % this.plan.files.length]
  }

  /** Length of the item, less than the file's when the data ends within it. */
  lengthOf(item: number): number {
    return Math.min(this.fileOf(item).lengthBytes, this.plan.dataBytes - this.startOf(item))
  }
}
