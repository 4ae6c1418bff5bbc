import { constants } from 'node:fs'
import { open, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { BufferStore } from '../case/store.ts'
import { mebibyte } from '../sizes.ts'
import { BufferCache } from './buffer-cache.ts'
import type { PeerSettings } from './registry.ts'

const requestBytes = 2 * mebibyte

/** One file opened for direct I/O; every buffer has its place in it and travels as several requests at once. */
export async function openDirectFilePeer(settings: PeerSettings): Promise<BufferStore> {
  const path = join(settings.directory, `direct-file-${process.pid}.bin`)
  const { O_RDWR, O_CREAT, O_EXCL, O_DIRECT } = constants
  const file = await open(path, O_RDWR | O_CREAT | O_EXCL | (O_DIRECT ?? 0), 0o600)
  await unlink(path)

  async function transfer(
    buffer: number,
    memory: Uint8Array,
    move: (offset: number, length: number, position: number) => Promise<number>,
  ): Promise<void> {
    const requests: Promise<void>[] = []
    for (let offset = 0; offset < memory.byteLength; offset += requestBytes) {
      const length = Math.min(requestBytes, memory.byteLength - offset)
      requests.push(
        move(offset, length, buffer * settings.bufferBytes + offset).then((moved) => {
          if (moved !== length) throw new Error(`${moved} bytes were moved instead of ${length}`)
        }),
      )
    }
    await Promise.all(requests)
  }

  return new BufferCache(
    {
      load: (buffer, memory) =>
        transfer(buffer, memory, async (offset, length, position) => {
          return (await file.read(memory, offset, length, position)).bytesRead
        }),
      store: (buffer, memory) =>
        transfer(buffer, memory, async (offset, length, position) => {
          return (await file.write(memory, offset, length, position)).bytesWritten
        }),
      close: () => file.close(),
    },
    settings.limitBytes,
    settings.bufferBytes,
    settings.bufferCount,
  )
}
