import { poolTitle } from '../ground/trace.ts'
import type { Machine } from '../machine.ts'
import { cachings } from '../providers/provider.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { cleanList, dirtyList, purgeableList, unevictableList } from '../table/chunks.ts'
import { type PoolStats, poolStats } from './stats.ts'

/** One row of the free lists: how many chunks of each order are idle. */
export interface FreeListDump {
  readonly caching: string
  readonly chunksByOrder: readonly number[]
  readonly pages: number
}

export interface BufferDump {
  readonly label: string
  readonly sizeBytes: number
  readonly residentPages: number
  readonly storedPages: number
  readonly pins: number
  readonly operations: number
  readonly backup: string | undefined
}

export interface StoreDump {
  readonly name: string
  readonly buffers: number
  readonly callsInFlight: number
  /** Message of the failure that reclaim met last; absent when the last call went well. */
  readonly failure: string | undefined
  readonly backoffMs: number
}

/** All that a pool knows of itself, as data; as text with `toString()` (T80). Totals in pages, free lists in chunks. */
export interface PoolDump {
  readonly pool: string
  readonly provider: string
  readonly slabs: number
  readonly stats: PoolStats
  readonly freeLists: readonly FreeListDump[]
  readonly lists: Readonly<Record<'unevictable' | 'dirty' | 'clean' | 'purgeable', number>>
  /** The oldest buffers, a thousand at most, and how many there are besides. */
  readonly buffers: readonly BufferDump[]
  readonly moreBuffers: number
  readonly backups: readonly StoreDump[]
  toString(): string
}

/** More would take longer than the event loop may be held up. */
const mostBuffers = 1000

export function poolDump(name: string, machine: Machine): PoolDump {
  const { pages, residents, maxOrder } = machine
  const { listPages } = residents.chunks
  const orders = Array.from({ length: maxOrder + 1 }, (_, order) => order)
  const dump = {
    pool: name,
    provider: pages.slabs.provider?.name ?? 'none yet',
    slabs: pages.slabs.slabCount,
    stats: poolStats(machine),
    freeLists: cachings.map((caching, index) => {
      const chunksByOrder = orders.map((order) => pages.listLength(index, order))
      return {
        caching,
        chunksByOrder,
        pages: chunksByOrder.reduce((sum, count, order) => sum + count * 2 ** order, 0),
      }
    }),
    lists: {
      unevictable: listPages[unevictableList]!,
      dirty: listPages[dirtyList]!,
      clean: listPages[cleanList]!,
      purgeable: listPages[purgeableList]!,
    },
    buffers: oldest(residents.buffers.values()).map((buffer) => ({
      label: buffer.label,
      sizeBytes: buffer.sizeBytes,
      residentPages: buffer.table.residentPages,
      storedPages: buffer.table.storedPages,
      pins: buffer.userPins,
      operations: buffer.operations,
      backup: buffer.store?.name,
    })),
    moreBuffers: Math.max(0, residents.buffers.size - mostBuffers),
    backups: [...machine.backingStores.values()].map((store) => ({
      name: store.name,
      buffers: store.users,
      callsInFlight: store.reclaimCalls,
      failure: store.failure?.message,
      backoffMs: Math.ceil(store.backoffMs),
    })),
  }
  return { ...dump, toString: () => asText(dump) }
}

function oldest(buffers: Iterable<BufferState>): BufferState[] {
  const taken: BufferState[] = []
  for (const buffer of buffers) {
    if (taken.length === mostBuffers) break
    taken.push(buffer)
  }
  return taken
}

function asText(dump: Omit<PoolDump, 'toString'>): string {
  const { stats, lists } = dump
  const kibibytes = (bytes: number) => `${Math.ceil(bytes / 1024)} KiB`
  const width = Math.max(14, ...dump.buffers.map((buffer) => buffer.label.length))
  return [
    `${poolTitle(dump.pool)}: provider ${dump.provider}, ${dump.slabs} slabs`,
    `limit ${kibibytes(stats.limitBytes)}, resident ${kibibytes(stats.residentBytes)} (in use ${kibibytes(stats.inUseBytes)}, idle ${kibibytes(stats.idleBytes)}, pinned ${kibibytes(stats.pinnedBytes)}, dirty ${kibibytes(stats.dirtyBytes)}), backed up ${kibibytes(stats.backedUpBytes)}, waiting ${stats.waiters}`,
    `lists in pages: unevictable ${lists.unevictable}, dirty ${lists.dirty}, clean ${lists.clean}, purgeable ${lists.purgeable}`,
    'idle chunks by order:',
    ...dump.freeLists.map(
      ({ caching, chunksByOrder, pages }) =>
        `  ${caching.padEnd(14)} ${chunksByOrder.map((count) => String(count).padStart(5)).join(' ')}  = ${pages} pages`,
    ),
    'buffers:',
    ...dump.buffers.map(
      (buffer) =>
        `  ${buffer.label.padEnd(width)} ${kibibytes(buffer.sizeBytes)}: ${buffer.residentPages} pages resident, ${buffer.storedPages} backed up to ${buffer.backup ?? 'nothing'}, ${buffer.pins} pins, ${buffer.operations} operations`,
    ),
    ...(dump.moreBuffers > 0 ? [`  … and ${dump.moreBuffers} more`] : []),
    'backups:',
    ...dump.backups.map(
      (backup) =>
        `  ${backup.name.padEnd(width)} ${backup.buffers} buffers, ${backup.callsInFlight} calls in flight${backup.failure === undefined ? '' : `, failing (next try in ${backup.backoffMs} ms): ${backup.failure}`}`,
    ),
  ].join('\n')
}
