import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import type { PeerSettings } from './peer-settings.ts'
import type { UnitStore } from './unit-cache.ts'

const requestBytes = 2 * 2 ** 20

/** One file opened for direct I/O; every unit has its place in it, and large ones travel as several requests at once. */
export async function openDirectFile({ directory, unitBytes }: PeerSettings): Promise<UnitStore> {
  const { O_RDWR, O_CREAT, O_EXCL, O_DIRECT } = constants
  const file = await open(join(directory, 'data.bin'), O_RDWR | O_CREAT | O_EXCL | (O_DIRECT ?? 0), 0o600)

  async function transfer(
    unit: number,
    move: (offset: number, length: number, position: number) => Promise<number>,
  ): Promise<void> {
    const requests: Promise<void>[] = []
    for (let offset = 0; offset < unitBytes; offset += requestBytes) {
      const length = Math.min(requestBytes, unitBytes - offset)
      requests.push(
        move(offset, length, unit * unitBytes + offset).then((moved) => {
          if (moved !== length) throw new Error(`${moved} bytes were moved instead of ${length}`)
        }),
      )
    }
    await Promise.all(requests)
  }

  return {
    load: (unit, memory) =>
      transfer(unit, async (offset, length, position) => {
        return (await file.read(memory, offset, length, position)).bytesRead
      }),
    store: (unit, memory) =>
      transfer(unit, async (offset, length, position) => {
        return (await file.write(memory, offset, length, position)).bytesWritten
      }),
    close: () => file.close(),
  }
}

/** One ordinary file for every buffer, through the page cache; a unit that is smaller has its place in the file of its buffer. */
export async function openFilePerBuffer(settings: PeerSettings): Promise<UnitStore> {
  const { directory, unitBytes, bufferBytes, bufferCount } = settings
  const files: FileHandle[] = []
  for (let buffer = 0; buffer < bufferCount; buffer++) {
    files.push(await open(join(directory, `${buffer}.bin`), 'w+', 0o600))
  }
  const placeOf = (unit: number) => {
    const position = unit * unitBytes
    return { file: files[Math.floor(position / bufferBytes)], offset: position % bufferBytes }
  }
  return {
    async load(unit, memory) {
      const { file, offset } = placeOf(unit)
      for (let done = 0; done < unitBytes; ) {
        const { bytesRead } = await file.read(memory, done, unitBytes - done, offset + done)
        if (bytesRead === 0) throw new Error('the file of a buffer is too short')
        done += bytesRead
      }
    },
    async store(unit, memory) {
      const { file, offset } = placeOf(unit)
      for (let done = 0; done < unitBytes; ) {
        done += (await file.write(memory, done, unitBytes - done, offset + done)).bytesWritten
      }
    },
    async close() {
      for (const file of files) await file.close()
    },
  }
}
