import { Buffer } from 'node:buffer'
import { pace } from '@spillway/core'

/** Memory that is compared in one step: it stays in the caches of the processor. */
const stepBytes = 64 * 1024
const zeros = new Uint8Array(stepBytes)
/** Words that are looked at before all of the memory is. */
const samples = 16

/**
 * Whether memory holds nothing but zeros. Nearly all that does not is told by the first of a few words; the rest is compared as fast as
 * memory is read, and paced like any other work.
 */
export function isZero(memory: Uint8Array): boolean | Promise<boolean> {
  if (!mayBeZero(memory)) return false
  const { byteLength } = memory
  const turn = pace(byteLength)
  // Memory that is gone meanwhile has no length any more, and says nothing of what it held.
  return turn === undefined
    ? isZeroNow(memory)
    : turn.then(() => memory.byteLength === byteLength && isZeroNow(memory))
}

function mayBeZero(memory: Uint8Array): boolean {
  if (memory.byteLength === 0) return false
  const stride = Math.max(8, memory.byteLength / samples)
  for (let at = 0; at < memory.byteLength; at += stride) {
    for (let byte = at; byte < at + 8; byte++) if (memory[byte] !== 0) return false
  }
  return true
}

/** The same at once: nothing comes between the answer and what is done with it. */
export function isZeroNow(memory: Uint8Array): boolean {
  if (!mayBeZero(memory)) return false
  for (let at = 0; at < memory.byteLength; at += stepBytes) {
    const part = memory.subarray(at, at + stepBytes)
    if (
      Buffer.compare(part, part.byteLength === stepBytes ? zeros : zeros.subarray(0, part.byteLength)) !== 0
    )
      return false
  }
  return true
}
