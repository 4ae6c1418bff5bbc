import { maxHandle } from '@spillway/core'

/**
 * A handle names a place in a segment: `segment number × 2^21 + page within the segment`. The stride is fixed, so a
 * store can be attached to with another segment size. Segment numbers start at random and are never used twice: a
 * handle of another store, or of a page that was dropped, meets a number that is not there.
 */
export const handleStride = 2 ** 21

/** The largest segment number. */
export const maxSegmentNumber = Math.floor(maxHandle / handleStride)

export function handleOf(segmentNumber: number, page: number): number {
  return segmentNumber * handleStride + page
}

export function segmentOf(handle: number): number {
  return Math.floor(handle / handleStride)
}

export function pageOf(handle: number): number {
  return handle % handleStride
}

/** Where a store begins to count: anywhere in the lower half, so that at least 2^30 segments follow. */
export function firstSegmentNumber(random: number): number {
  return 1 + Math.floor(random * 2 ** 30)
}
