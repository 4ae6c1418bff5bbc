import { mkdtemp, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { BufferStore } from '../case/store.ts'
import { BufferCache } from './buffer-cache.ts'
import type { PeerSettings } from './registry.ts'

/** One ordinary file for every buffer, written and read whole, through the page cache. */
export async function openFilePerBufferPeer(settings: PeerSettings): Promise<BufferStore> {
  const directory = await mkdtemp(join(settings.directory, 'file-per-buffer-'))
  const pathOf = (buffer: number) => join(directory, `${buffer}.bin`)
  return new BufferCache(
    {
      async load(buffer, memory) {
        await using file = await open(pathOf(buffer), 'r')
        for (let done = 0; done < memory.byteLength; ) {
          const { bytesRead } = await file.read(memory, done, memory.byteLength - done, done)
          if (bytesRead === 0) throw new Error(`${pathOf(buffer)} is too short`)
          done += bytesRead
        }
      },
      async store(buffer, memory) {
        await using file = await open(pathOf(buffer), 'w', 0o600)
        for (let done = 0; done < memory.byteLength; ) {
          done += (await file.write(memory, done, memory.byteLength - done, done)).bytesWritten
        }
      },
      close: () => rm(directory, { recursive: true, force: true }),
    },
    settings.limitBytes,
    settings.bufferBytes,
    settings.bufferCount,
  )
}
