import { afterInput, nowMs } from '@spillway/core'

/**
 * Keeps long work from blocking the event loop: whoever has done a mebibyte's worth of copying or scanning asks here, and
 * waits one turn when the slice is used up. The slice is shared by everything in the process, because the event loop is.
 */

const sliceMs = 1

let sliceEndMs = 0
let turn: Promise<void> | undefined

/** Undefined while the slice lasts, else what to await before going on. */
export function pace(): Promise<void> | undefined {
  if (nowMs() < sliceEndMs) return undefined
  turn ??= new Promise((resolve) => {
    afterInput(() => {
      turn = undefined
      sliceEndMs = nowMs() + sliceMs
      resolve()
    })
  })
  return turn
}

/** Bytes to copy or clear between two questions. */
export const sliceBytes = 1024 ** 2
