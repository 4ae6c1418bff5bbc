import type { Machine } from '../machine.ts'
import type { Counters } from '../residency/counters.ts'

/** Gauges in bytes, and counters. */
export interface PoolStats extends Readonly<Counters> {
  readonly limitBytes: number
  /** Memory that the pool holds: in use and idle. Never more than the limit. */
  readonly residentBytes: number
  /** Memory in chunks of buffers. */
  readonly inUseBytes: number
  /** Memory that no buffer uses, kept warm in the free lists; pools of one budget have these together where they can. */
  readonly idleBytes: number
  /** Memory that backups freed a moment ago: reused first, and given to the system when nobody takes it. */
  readonly retainedBytes: number
  /** Memory that no buffer uses, and that cannot be given back because its slab is in use; reused first. */
  readonly strandedBytes: number
  /** Memory that is held by pins and running operations. */
  readonly pinnedBytes: number
  /** Memory whose content is not stored. */
  readonly dirtyBytes: number
  /** Bytes that are in a backup and not in memory. */
  readonly backedUpBytes: number
  /** Bytes that are both in memory, unchanged, and in a backup: evicting them costs no I/O. */
  readonly keptBytes: number
  /**
   * Memory that the pool needs to know all this: buffers, tables and records. What the engine takes for objects is as measured with Node.
   */
  readonly metadataBytes: number
  readonly buffers: number
  readonly chunks: number
  /** Chunks that accesses used so far, each once however often it is used in a row. `missedChunks` of them came from a backup. */
  readonly usedChunks: number
  /** Pins that the application holds. */
  readonly pins: number
  /** Claims of memory that wait now. */
  readonly waiters: number
  /** Pages whose stored copy a backup refused to drop. */
  readonly dropFailures: number
  /** Calls in which a page provider failed to take memory back or to end a mapping; that memory stays idle. */
  readonly providerFailures: number
}

export function poolStats(machine: Machine): PoolStats {
  const { residents, pages, limit, pageSizeBytes } = machine
  const { chunks } = residents
  let storedPages = 0
  let metadataBytes = chunks.metadataBytes + residents.order.metadataBytes + residents.buffers.metadataBytes
  metadataBytes += pages.slabs.metadataBytes + machine.bypass.heldBytes
  for (const buffer of residents.buffers.values()) {
    storedPages += buffer.table.storedPages
    metadataBytes += buffer.metadataBytes
  }
  let dropFailures = 0
  for (const store of machine.backingStores.values()) dropFailures += store.dropFailures
  return {
    ...residents.counters,
    limitBytes: machine.limitBytes,
    residentBytes: (residents.inUsePages + pages.idlePages + pages.slabs.strandedPages) * pageSizeBytes,
    inUseBytes: residents.inUsePages * pageSizeBytes,
    idleBytes: (pages.idlePages - pages.retainedPages) * pageSizeBytes,
    retainedBytes: pages.retainedPages * pageSizeBytes,
    strandedBytes: pages.slabs.strandedPages * pageSizeBytes,
    pinnedBytes: residents.pinnedPages * pageSizeBytes,
    dirtyBytes: residents.dirtyPages * pageSizeBytes,
    backedUpBytes: storedPages * pageSizeBytes,
    keptBytes: chunks.countStored() * pageSizeBytes,
    metadataBytes,
    buffers: residents.buffers.size,
    chunks: chunks.count,
    usedChunks: residents.order.uses,
    pins: machine.residents.applicationPins,
    waiters: limit.waiters,
    dropFailures,
    providerFailures: pages.providerFailures,
  }
}
