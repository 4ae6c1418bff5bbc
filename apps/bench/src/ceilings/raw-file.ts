import { constants } from 'node:fs'
import { type FileHandle, open, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { alignedMemory } from '../peers/aligned-memory.ts'
import { affordableOrder, type CeilingOrder } from './measure.ts'

/** Writes and reads one file through `node:fs` with the backends' sizes and depth, direct and through the page cache. */
export async function measureRawFile(
  order: CeilingOrder,
  allowedMs: number,
  notes: string[],
): Promise<Record<string, number[]>> {
  const path = join(order.directory, `raw-file-${process.pid}.bin`)
  const memory = alignedMemory(order.setBytes).fill(0x5a)
  const figures: Record<string, number[]> = {}
  for (const [name, flag] of [
    ['nodeDirect', constants.O_DIRECT ?? 0],
    ['nodeBuffered', 0],
  ] as const) {
    const { O_RDWR, O_CREAT } = constants
    let file: FileHandle
    try {
      file = await open(path, O_RDWR | O_CREAT | flag, 0o600)
    } catch (failure) {
      notes.push(`${name} was not measured: ${(failure as Error).message}`)
      continue
    }
    try {
      const writes: number[] = []
      const reads: number[] = []
      let measured = order
      for (let round = 0; round <= order.rounds; round++) {
        const startMs = performance.now()
        const written = await transfer(measured, (offset, length) =>
          file.write(memory, offset, length, offset),
        )
        const read = await transfer(measured, (offset, length) => file.read(memory, offset, length, offset))
        if (round === 0) {
          measured = affordableOrder(order, allowedMs / 2, performance.now() - startMs, notes, name)
          continue
        }
        writes.push(written)
        reads.push(read)
      }
      figures[`${name}Write`] = writes
      figures[`${name}Read`] = reads
    } catch (failure) {
      notes.push(`${name} was not measured: ${(failure as Error).message}`)
    } finally {
      await file.close()
      await unlink(path)
    }
  }
  return figures
}

/** Bytes per second of one pass over the set. */
async function transfer(
  { setBytes, requestBytes, depth }: CeilingOrder,
  move: (offset: number, length: number) => Promise<unknown>,
): Promise<number> {
  let next = 0
  async function worker(): Promise<void> {
    while (next < setBytes) {
      const offset = next
      next += requestBytes
      await move(offset, Math.min(requestBytes, setBytes - offset))
    }
  }
  const start = performance.now()
  await Promise.all(Array.from({ length: depth }, worker))
  return (setBytes / (performance.now() - start)) * 1000
}
