import * as nodeFileSystem from 'node:fs'
import { join } from 'node:path'
import { available } from '@spillway/native'
import { type FileBackup, type FileBackupOptions, openFileBackup } from '../src/index.ts'
import { dataOffsetBytes } from '../src/layout.ts'
import { memoryFileSystem } from './places.ts'

/** A way of keeping pages in a file: what the conformance suite and the fault tests run on. */
export interface Kind {
  readonly name: string
  readonly open: (options?: Partial<FileBackupOptions>) => Promise<FileBackup>
  /** Flips a bit of a stored page of the backup opened last, behind its back. */
  readonly corrupt: (handle: number, capacityPages: number) => Promise<void>
}

/** The ways the package promises; io_uring where the system allows it, which `stats()` and the options tell. */
export function kinds(directory: string): Kind[] {
  const uring = available().ioUring
    ? [systemKind('uring, direct', directory, { io: 'uring', direct: true })]
    : []
  return [
    ...uring,
    systemKind('threads, direct', directory, { io: 'threads', direct: true }),
    systemKind('threads, buffered', directory, { io: 'threads', direct: false }),
    memoryKind(),
  ]
}

function systemKind(name: string, directory: string, fixed: Partial<FileBackupOptions>): Kind {
  let path = ''
  let opened = 0
  return {
    name,
    open: (options) => {
      path = join(directory, `${name.replace(/\W+/g, '-')}-${opened++}`)
      return openFileBackup({ path, keepFreeBytes: 0, ...fixed, ...options })
    },
    corrupt: async (handle, capacityPages) => {
      const fileDescriptor = nodeFileSystem.openSync(path, 'r+')
      flipBit(nodeFileSystem, fileDescriptor, handle, capacityPages)
      nodeFileSystem.closeSync(fileDescriptor)
    },
  }
}

function memoryKind(): Kind {
  let fileSystem = memoryFileSystem()
  return {
    name: 'memfs',
    open: (options) => {
      fileSystem = memoryFileSystem()
      return openFileBackup({ path: '/spill/pages', fs: fileSystem, ...options })
    },
    corrupt: async (handle, capacityPages) => {
      const system = fileSystem as unknown as typeof nodeFileSystem
      const fileDescriptor = system.openSync('/spill/pages', 'r+')
      flipBit(system, fileDescriptor, handle, capacityPages)
      system.closeSync(fileDescriptor)
    },
  }
}

/** Where a page of 4 KiB lies: handles carry the slot below the power of two that holds the capacity. */
export function offsetOf(handle: number, capacityPages: number): number {
  return dataOffsetBytes + (handle % 2 ** Math.ceil(Math.log2(capacityPages))) * 4096
}

function flipBit(
  fileSystem: Pick<typeof nodeFileSystem, 'readSync' | 'writeSync'>,
  fileDescriptor: number,
  handle: number,
  capacityPages: number,
): void {
  const byte = new Uint8Array(1)
  const position = offsetOf(handle, capacityPages) + 1234
  fileSystem.readSync(fileDescriptor, byte, 0, 1, position)
  byte[0] ^= 0x10
  fileSystem.writeSync(fileDescriptor, byte, 0, 1, position)
}
