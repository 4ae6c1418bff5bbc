import { type Backup, type BackupPagesOptions, type HandleRun, SpillwayError } from '@spillway/core'
import type { Spoiler } from '../backends.ts'

/** One page in so many is spoiled. */
const spoiledOneIn = 1000

/**
 * A backup that does wrong on purpose, behind the back of every checksum, so that the bench can show that it would notice:
 * `flip` stores one byte of every thousandth page wrong, `lose` cannot give back every thousandth page.
 */
export function spoiledBackup(inner: Backup, spoiler: Spoiler): Backup {
  let pagesSeen = 0
  const lost = new Set<number>()
  const { pageSizeBytes } = inner.capabilities

  function flipped(span: Uint8Array): Uint8Array {
    const copy = span.slice()
    for (let start = 0; start < copy.byteLength; start += pageSizeBytes) {
      if (++pagesSeen % spoiledOneIn === 0) copy[start + 1] ^= 0x01
    }
    return copy
  }

  function noteLost(runs: readonly HandleRun[]): void {
    for (const { first, count } of runs) {
      for (let handle = first; handle < first + count; handle++) {
        lost.delete(handle)
        if (++pagesSeen % spoiledOneIn === 0) lost.add(handle)
      }
    }
  }

  function firstLost(runs: readonly HandleRun[]): number {
    let page = 0
    for (const { first, count } of runs) {
      for (let handle = first; handle < first + count; handle++, page++) if (lost.has(handle)) return page
    }
    return -1
  }

  return {
    name: `${inner.name}+${spoiler}`,
    capabilities: inner.capabilities,
    async backupPages(spans: readonly Uint8Array[], options?: BackupPagesOptions) {
      const result = await inner.backupPages(spoiler === 'flip' ? spans.map(flipped) : spans, options)
      if (spoiler === 'lose') noteLost(result.handles)
      return result
    },
    async copyPages(handles, spans, options) {
      const page = firstLost(handles)
      if (page === -1) return inner.copyPages(handles, spans, options)
      return { copied: 0, error: new SpillwayError('EIO', 'lost on purpose', { page, retryable: false }) }
    },
    drop: (handles) => inner.drop(handles),
    bytesAvailable: () => inner.bytesAvailable(),
    reserve: (bytes) => inner.reserve(bytes),
    stats: () => inner.stats(),
    close: () => inner.close(),
    [Symbol.asyncDispose]: () => inner[Symbol.asyncDispose](),
  }
}
