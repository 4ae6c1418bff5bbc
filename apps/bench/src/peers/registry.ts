import type { BufferStore } from '../case/store.ts'
import {
  openBetterSqlite,
  openCacache,
  openClassicLevel,
  openLmdb,
  openNodeSqlite,
} from './database-stores.ts'
import { openDirectFile, openFilePerBuffer } from './file-stores.ts'
import type { PeerSettings } from './peer-settings.ts'
import { SwappedMemory } from './swapped-memory.ts'
import { UnitCache, type UnitStore } from './unit-cache.ts'

/** What people do today without Spillway, on the same data under the same limit. */
export interface PeerDescription {
  readonly name: string
  readonly description: string
  /** Installed on demand, exactly this version. */
  readonly npmPackage?: { readonly name: string; readonly version: string }
  /** The swap space that it takes; the system has it for all processes, so such peers run alone. */
  readonly swap?: 'file' | 'zram'
  /** It is not given smaller pieces than this. */
  readonly leastUnitBytes?: number
  open(settings: PeerSettings): Promise<BufferStore>
}

/** A store of whole units behind the cache that one writes by hand. */
function cached(openStore: (settings: PeerSettings) => Promise<UnitStore>): PeerDescription['open'] {
  return async (settings) => new UnitCache(await openStore(settings), settings)
}

function swapped(settings: PeerSettings): Promise<BufferStore> {
  return Promise.resolve(new SwappedMemory(settings))
}

export const peers: readonly PeerDescription[] = [
  {
    name: 'file-per-buffer',
    description:
      'node:fs: least recently used pieces in memory, a file for each buffer, through the page cache',
    open: cached(openFilePerBuffer),
  },
  {
    name: 'direct-file',
    description: 'node:fs: the same with one file opened with O_DIRECT, requests of up to 2 MiB side by side',
    open: cached(openDirectFile),
  },
  {
    name: 'node-sqlite',
    description: 'node:sqlite: the same with a row for each piece, without journal and sync',
    open: cached(openNodeSqlite),
  },
  {
    name: 'better-sqlite3',
    description: 'better-sqlite3: the same, with the same settings',
    npmPackage: { name: 'better-sqlite3', version: '13.2.0' },
    open: cached(openBetterSqlite),
  },
  {
    name: 'lmdb',
    description: 'lmdb: the same with a value for each piece, without sync',
    npmPackage: { name: 'lmdb', version: '3.5.6' },
    open: cached(openLmdb),
  },
  {
    name: 'classic-level',
    description: 'classic-level (LevelDB): the same, without compression',
    npmPackage: { name: 'classic-level', version: '3.0.0' },
    open: cached(openClassicLevel),
  },
  {
    name: 'cacache',
    description: 'cacache, the cache of npm: the same with pieces of at least 64 KiB, named by their digests',
    npmPackage: { name: 'cacache', version: '21.0.2' },
    leastUnitBytes: 65_536,
    open: cached(openCacache),
  },
  {
    name: 'swap',
    description: 'ordinary memory, which Linux swaps to a file',
    swap: 'file',
    open: swapped,
  },
  {
    name: 'zram',
    description: 'ordinary memory, which Linux swaps to compressed memory outside of the limit',
    swap: 'zram',
    open: swapped,
  },
]

export function peerNamed(name: string): PeerDescription | undefined {
  return peers.find((known) => known.name === name)
}
