import type { BufferStore } from '../case/store.ts'
import { openDirectFilePeer } from './direct-file.ts'
import { openFilePerBufferPeer } from './file-per-buffer.ts'

export interface PeerSettings {
  readonly directory: string
  readonly limitBytes: number
  readonly bufferBytes: number
  readonly bufferCount: number
}

/** What people do today without Spillway, on the same data under the same limit. */
export interface PeerDescription {
  readonly name: string
  readonly title: string
  readonly description: string
  open(settings: PeerSettings): Promise<BufferStore>
}

export const peers: readonly PeerDescription[] = [
  {
    name: 'file-per-buffer',
    title: 'node:fs, a file per buffer',
    description:
      'least recently used buffers in memory, the others in a file each: writeFile, read into reused memory',
    open: openFilePerBufferPeer,
  },
  {
    name: 'direct-file',
    title: 'node:fs, direct I/O by hand',
    description:
      'one file opened with O_DIRECT, a slot per buffer, four 2 MiB requests in flight, reused aligned memory',
    open: openDirectFilePeer,
  },
]

export function openPeer(name: string, settings: PeerSettings): Promise<BufferStore> {
  const peer = peers.find((known) => known.name === name)
  if (peer === undefined) throw new Error(`peer ${name} is not known`)
  return peer.open(settings)
}
