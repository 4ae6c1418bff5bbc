import type { HandleRun } from '@spillway/core'
import { scattered } from './stored-handles.ts'

/** Goes through runs of handles one page after the other. */
export class HandleCursor {
  readonly #runs: readonly HandleRun[]
  #run = 0
  #index = 0

  constructor(runs: readonly HandleRun[]) {
    this.#runs = runs
  }

  takeOne(): number {
    const run = this.#runs[this.#run]!
    const handle = run.first + this.#index++
    if (this.#index === run.count) {
      this.#run++
      this.#index = 0
    }
    return handle
  }

  take(count: number): Float64Array {
    const handles = new Float64Array(count)
    for (let index = 0; index < count; index++) handles[index] = this.takeOne()
    return handles
  }

  /** The first of `count` adjacent handles, or `scattered` and nothing taken. */
  takeAdjacent(count: number): number {
    const first = this.#runs[this.#run]!.first + this.#index
    let have = this.#runs[this.#run]!.count - this.#index
    for (let run = this.#run; have < count; run++) {
      const next = this.#runs[run + 1]
      const current = this.#runs[run]!
      if (next === undefined || next.first !== current.first + current.count) return scattered
      have += next.count
    }
    for (let left = count; left > 0; ) {
      const run = this.#runs[this.#run]!
      const step = Math.min(left, run.count - this.#index)
      left -= step
      this.#index += step
      if (this.#index === run.count) {
        this.#run++
        this.#index = 0
      }
    }
    return first
  }
}
