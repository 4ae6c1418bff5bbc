import { SpillwayError } from '@spillway/core'
import type { Files } from '../file-system.ts'
import { alignedMemory } from '../staging.ts'
import type { StoreFile } from './store-file.ts'

/** The file of a store through the descriptor that has its lock, direct or not. */
export function storeFileOf(
  files: Files,
  fileDescriptor: number,
  assertUnchanged?: StoreFile['assertUnchanged'],
): StoreFile {
  return {
    read: async (into, offsetBytes) => {
      const memory = alignedMemory(into.byteLength)
      let done = 0
      while (done < memory.byteLength) {
        const more = await files.read(fileDescriptor, memory.subarray(done), offsetBytes + done)
        if (more === 0) break
        done += more
      }
      into.set(memory.subarray(0, done))
      into.fill(0, done)
    },
    write: async (bytes, offsetBytes) => {
      const memory = alignedMemory(bytes.byteLength)
      memory.set(bytes)
      for (let done = 0; done < memory.byteLength; ) {
        const more = await files.write(fileDescriptor, memory.subarray(done), offsetBytes + done)
        if (more === 0) throw new SpillwayError('EIO', 'a write stored nothing')
        done += more
      }
    },
    sync: () => files.fdatasync(fileDescriptor),
    ...(assertUnchanged && { assertUnchanged }),
  }
}
