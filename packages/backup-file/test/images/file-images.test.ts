import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { ImageBlocks } from '../../src/images/image-blocks.ts'
import type { StoreFile } from '../../src/images/store-file.ts'
import { failure } from '../faulty-file-system.ts'
import { LosingFile } from '../losing-file/losing-file.ts'
import { type Content, contentOf, HistoryWriter, newFile } from './history.ts'
import { layout, SmallStore } from './small-store.ts'

interface Opened {
  readonly file: LosingFile
  readonly store: SmallStore
  readonly writer: HistoryWriter
}

async function opened(file: LosingFile, capacitySlots?: number): Promise<Opened> {
  const store = await SmallStore.open(file, capacitySlots)
  return { file, store, writer: new HistoryWriter(store, file, 1) }
}

async function contentsOf(store: SmallStore): Promise<Record<string, Content | undefined>> {
  const contents: Record<string, Content | undefined> = {}
  for (const name of store.images.names()) contents[name] = await contentOf(store, name)
  return contents
}

/** The file with one byte changed at each of these offsets. */
function damagedAt(file: LosingFile, ...offsets: readonly number[]): LosingFile {
  const start = file.live
  for (const offset of offsets) {
    const byte = new Uint8Array(1)
    start.read(byte, offset)
    start.write(Uint8Array.of(byte[0]! ^ 0x10), offset)
  }
  return new LosingFile({ start })
}

/** Where a root was written last, or metadata: what a sync covers last, since pages that others store meanwhile come after it. */
function lastWritten(file: LosingFile, isIt: (offsetBytes: number) => boolean): number {
  for (const entry of file.log.toReversed()) {
    const last = entry.kind === 'sync' ? entry.covers.at(-1) : undefined
    if (last?.kind === 'write' && isIt(last.offsetBytes)) return last.offsetBytes
  }
  throw new Error('nothing was written there')
}

const isData = (offsetBytes: number) => offsetBytes >= layout.dataOffsetBytes

describe('blocks of metadata', () => {
  const roomy = { ...layout, slotRange: 2 ** 20 }
  const reads = (failing: number, content = new Map<number, Uint8Array>()) => {
    let count = 0
    const file: StoreFile = {
      read: async (into, offsetBytes) => {
        if (count++ === failing) throw failure('EIO')
        into.set(content.get(offsetBytes)!.subarray(0, into.byteLength))
      },
      write: async (bytes, offsetBytes) => void content.set(offsetBytes, bytes.slice()),
      sync: async () => {},
    }
    return new ImageBlocks(file, roomy)
  }

  it('are read by nobody any more when a read has ended', async () => {
    const content = new Map<number, Uint8Array>()
    const blocks = Array.from({ length: 40 }, (_, index) => new Uint8Array(100_000).fill(index + 1))
    let next = roomy.slotRange
    const pieces = await reads(-1, content).writePieces(blocks, async (count) => {
      next += count
      return [{ first: next - count, count }]
    })
    let underWay = 0
    const slow = new ImageBlocks(
      {
        read: async (into, offsetBytes) => {
          underWay++
          await delay(20)
          into.set(content.get(offsetBytes)!.subarray(0, into.byteLength))
          underWay--
        },
        write: async () => {},
        sync: async () => {},
      },
      roomy,
    )
    const stop = () => {
      throw new RangeError('enough')
    }
    await expect(slow.readPieces(pieces, stop)).rejects.toThrow('enough')
    expect(underWay).toBe(0)
  })

  it('come in order, long ones and those that lie in nodes, and a read ahead that fails is told once', async () => {
    const content = new Map<number, Uint8Array>()
    const long = Array.from({ length: 40 }, (_, index) => new Uint8Array(100_000).fill(index + 1))
    const blocks = long.flatMap((block, index) => [block, Uint8Array.of(index), new Uint8Array(0)])
    let next = roomy.slotRange
    const pieces = await reads(-1, content).writePieces(blocks, async (count) => {
      next += count
      return [{ first: next - count, count }]
    })
    const found: Uint8Array[] = []
    await reads(-1, content).readPieces(pieces, (bytes) => void found.push(bytes.slice()))
    expect(found).toEqual(blocks)
    for (const failing of [0, 1, 2]) {
      const seen: number[] = []
      const reading = reads(failing, content).readPieces(pieces, (bytes) => void seen.push(bytes.byteLength))
      await expect(reading).rejects.toMatchObject({ code: 'EIO' })
      expect(seen.length > 0).toBe(failing > 0)
    }
  })
})

describe('images in a file', () => {
  it('are there in the next process with all they keep, and nothing else takes space', async () => {
    const { file, store, writer } = await opened(await newFile())
    await writer.replace('a', [3, 0, 2])
    await writer.replace('b', Array<number>(70).fill(1))
    await writer.change('a', 5)
    await writer.replace('gone', [4])
    await writer.remove('gone')
    const used = store.usedSlots
    await store.store([7, 8, 9])
    const next = await opened(file)
    expect(await contentsOf(next.store)).toEqual(await contentsOf(store))
    expect(next.store.usedSlots).toBe(used)
    await next.writer.remove('a')
    await next.writer.remove('b')
    expect(next.store.usedSlots).toBe(0)
  })

  it('a change writes the blocks that changed and those above them, whatever the image has else', async () => {
    const { file, writer } = await opened(await newFile())
    await writer.replace('a', Array<number>(300).fill(0))
    const before = file.log.length
    await writer.change('a', 1)
    const bytes = file.log
      .slice(before)
      .reduce((sum, entry) => sum + (entry.kind === 'write' ? entry.bytes.byteLength : 0), 0)
    expect(bytes).toBeLessThan(16 * 1024)
  })

  it('a full file refuses a save, keeps the old image, and removes on', async () => {
    const { file, store, writer } = await opened(await newFile(), 12)
    await writer.replace('a', [6])
    const before = await contentsOf(store)
    const used = store.usedSlots
    const pages = await store.store([1, 2, 3, 4])
    const keeps = [pages]
    const content = { body: [{ index: 0, bytes: new Uint8Array(5000) }], keeps }
    await expect(store.images.save('a', content)).rejects.toMatchObject({ code: 'ENOSPC' })
    expect(await contentsOf(store)).toEqual(before)
    store.drop(pages)
    expect(store.usedSlots).toBe(used)
    await writer.remove('a')
    expect(store.usedSlots).toBe(0)
    expect((await opened(file)).store.images.names()).toEqual([])
  })

  it('a write that fails before the root leaves the old image, and the store goes on', async () => {
    const { file, store, writer } = await opened(await newFile())
    await writer.replace('a', [2])
    const [before, used] = [await contentsOf(store), store.usedSlots]
    const write = file.write.bind(file)
    file.write = () => Promise.reject(failure('ENOSPC'))
    const empty = { body: [{ index: 0, bytes: Uint8Array.of(1) }], keeps: [[]] }
    await expect(store.images.save('a', empty)).rejects.toMatchObject({ code: 'ENOSPC' })
    file.write = write
    expect(store.usedSlots).toBe(used)
    expect(await contentsOf(store)).toEqual(before)
    await writer.change('a', 1)
    expect(await contentsOf((await opened(file)).store)).toEqual(await contentsOf(store))
  })

  it('a write of the root that fails, and a sync that fails, are EIO from then on', async () => {
    for (const call of ['write', 'sync'] as const) {
      const { file, store, writer } = await opened(await newFile())
      await writer.replace('a', [2])
      const before = await contentsOf(store)
      const works = file[call].bind(file) as () => Promise<void>
      file[call] = () => Promise.reject(failure('EIO'))
      await expect(store.images.remove('a')).rejects.toMatchObject({
        code: 'EIO',
        cause: { code: 'EIO', message: 'EIO: injected' },
      })
      file[call] = works
      await expect(writer.replace('b', [1])).rejects.toMatchObject({ code: 'EIO' })
      await expect(store.images.remove('a')).rejects.toMatchObject({ code: 'EIO' })
      expect(await contentsOf(store)).toEqual(before)
    }
  })

  it('the older root is used when the newer is damaged, and that is told', async () => {
    const { file, writer } = await opened(await newFile())
    await writer.replace('a', [2])
    const newest = lastWritten(file, (offset) => !isData(offset))
    expect((await opened(damagedAt(file))).store.rootTorn).toBe(false)
    const older = await opened(damagedAt(file, newest + 36))
    expect(older.store.rootTorn).toBe(true)
    expect(older.store.images.names()).toEqual([])
    await older.writer.replace('b', [3])
    const next = await opened(older.file)
    expect(next.store.rootTorn).toBe(false)
    expect(await contentsOf(next.store)).toEqual(await contentsOf(older.store))
  })

  it('a store with neither root whole is EBADMSG', async () => {
    const { file, writer } = await opened(await newFile())
    await writer.replace('a', [2])
    const [first, second] = layout.rootOffsetsBytes
    const damaged = damagedAt(file, first + 36, second + 36)
    await expect(SmallStore.open(damaged)).rejects.toMatchObject({ code: 'EBADMSG' })
  })

  it('damaged metadata costs the image that needs it and no other', async () => {
    const { file, writer } = await opened(await newFile())
    await writer.replace('whole', [2])
    await writer.replace('a', [1, 2])
    const { store, writer: next } = await opened(damagedAt(file, lastWritten(file, isData) + 3))
    expect(store.images.names()).toEqual(['a', 'whole'])
    await expect(store.images.load('a')).rejects.toMatchObject({ code: 'EBADMSG' })
    expect(await contentOf(store, 'whole')).toHaveLength(1)
    await next.replace('a', [3])
    expect(await contentOf(store, 'a')).toHaveLength(1)
    const again = await opened(damagedAt(file, lastWritten(file, isData) + 3))
    await again.writer.remove('a')
    expect(again.store.images.names()).toEqual(['whole'])
  })

  it('one image more than a root holds is ENOSPC, and the others stay', async () => {
    const { file, store, writer } = await opened(await newFile())
    let count = 0
    const saving = async () => {
      for (; count < 100; count++) await writer.replace(`${count}-${'x'.repeat(190)}`, [])
    }
    await expect(saving()).rejects.toMatchObject({ code: 'ENOSPC' })
    expect(count).toBeGreaterThan(30)
    expect(store.images.names()).toHaveLength(count)
    await writer.remove(store.images.names()[0]!)
    await writer.replace('one', [1])
    expect((await opened(file)).store.images.names()).toEqual(store.images.names())
  })
})
