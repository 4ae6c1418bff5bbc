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

/** Fewer pages of zeros between others are stored like these: what they take costs less than more and smaller chunks. */
export const leastZeroPages = 16

/** Whether memory may hold `leastZeroPages` pages of zeros in a row, as told by a few words of a few pages. */
export function mayHaveZeroRuns(memory: Uint8Array, pageSizeBytes: number): boolean {
  // Each such run has one of these pages.
  const stride = leastZeroPages * pageSizeBytes
  for (let end = stride; end <= memory.byteLength; end += stride) {
    if (mayBeZero(memory.subarray(end - pageSizeBytes, end))) return true
  }
  return false
}

/** All runs of at least `leastZeroPages` pages of zeros: for each its first page, then the page after it. */
export function zeroRuns(memory: Uint8Array, pageSizeBytes: number): number[] {
  const pageCount = memory.byteLength / pageSizeBytes
  const isZeroPage = (page: number) =>
    isZeroNow(memory.subarray(page * pageSizeBytes, (page + 1) * pageSizeBytes))
  const bounds: number[] = []
  for (let first = 0; first + leastZeroPages <= pageCount; ) {
    // From the end of the shortest run that could begin here: mostly that page is no zero page, and the others need no look.
    let clear = first + leastZeroPages
    while (clear > first && isZeroPage(clear - 1)) clear--
    if (clear > first) {
      first = clear
      continue
    }
    let end = first + leastZeroPages
    while (end < pageCount && isZeroPage(end)) end++
    bounds.push(first, end)
    first = end + 1
  }
  return bounds
}
