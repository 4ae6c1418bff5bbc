import { UsageError } from '../usage-error.ts'

/** A sequence of accesses to pages, which a simulator and the pool can both follow. */
export interface Trace {
  readonly name: string
  /** Pages of each buffer; page numbers of the trace go on from one buffer to the next. */
  readonly bufferPages: readonly number[]
  /** The page of each access. */
  readonly pages: Uint32Array
  /** 1 where the access writes. */
  readonly writes: Uint8Array
}

/** Pages of all buffers of a trace. */
export function pageCountOf(trace: Trace): number {
  return trace.bufferPages.reduce((sum, pages) => sum + pages, 0)
}

/** Throws `UsageError` for a trace without accesses, or with one that lies in no buffer. */
export function assertTrace(trace: Trace): void {
  if (trace.pages.length === 0) throw new UsageError(`trace '${trace.name}' is empty; it has no accesses`)
  if (trace.writes.length !== trace.pages.length) {
    throw new UsageError(
      `trace '${trace.name}' has ${trace.pages.length} accesses and says of ${trace.writes.length} whether they write`,
    )
  }
  const pageCount = pageCountOf(trace)
  const outside = trace.pages.find((page) => page >= pageCount)
  if (outside !== undefined) {
    throw new UsageError(
      `trace '${trace.name}' accesses page ${outside}; its buffers have ${pageCount} pages`,
    )
  }
}
