import type { HandleRun } from './contract.ts'

/** The memory of the first `pages` pages. */
export function firstSpans(spans: readonly Uint8Array[], pages: number, pageSizeBytes: number): Uint8Array[] {
  const prefix: Uint8Array[] = []
  let left = pages * pageSizeBytes
  for (const span of spans) {
    if (left === 0) break
    const length = Math.min(left, span.byteLength)
    prefix.push(span.subarray(0, length))
    left -= length
  }
  return prefix
}

/** The first `pages` handles. */
export function firstHandles(handles: readonly HandleRun[], pages: number): HandleRun[] {
  const prefix: HandleRun[] = []
  let left = pages
  for (const { first, count } of handles) {
    if (left === 0) break
    prefix.push({ first, count: Math.min(left, count) })
    left -= Math.min(left, count)
  }
  return prefix
}

/** The handles behind the first `pages`. */
export function restHandles(handles: readonly HandleRun[], pages: number): HandleRun[] {
  const rest: HandleRun[] = []
  let before = 0
  for (const { first, count } of handles) {
    const skipped = Math.min(count, Math.max(0, pages - before))
    if (skipped < count) rest.push({ first: first + skipped, count: count - skipped })
    before += count
  }
  return rest
}
