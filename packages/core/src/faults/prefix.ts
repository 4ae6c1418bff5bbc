import type { HandleRun } from '../contract.ts'
import type { FaultStop } from './plan.ts'

/** After how many of its pages a call stops. */
export function stopAfter(stop: FaultStop, spans: readonly Uint8Array[], pageSizeBytes: number): number {
  const pagesOf = (span: Uint8Array): number => span.byteLength / pageSizeBytes
  const total = spans.reduce((pages, span) => pages + pagesOf(span), 0)
  if (typeof stop === 'number') return Math.min(stop, total)
  if (stop === 'half') return Math.ceil(total / 2)
  let before = 0
  for (const span of spans) {
    if (pagesOf(span) > 1) return before + (stop === 'first of chunk' ? 1 : Math.ceil(pagesOf(span) / 2))
    before += 1
  }
  // No chunk has more than one page: there is nothing to stop inside of.
  return total
}

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
