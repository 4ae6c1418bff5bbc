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
