import { describe, expect, it } from 'vitest'
import {
  defineBackup,
  memoryBackup,
  type NumberedPages,
  SpillwayError,
  StagingBuffers,
} from '../src/index.ts'

const pageSizeBytes = 4096

describe('defineBackup with a medium that knows its own room', () => {
  const inner = memoryBackup({ capacityBytes: 8 * pageSizeBytes })
  const medium: NumberedPages = {
    bytesAvailable: () => inner.bytesAvailable(),
    reserve: (bytes) => inner.reserve(bytes),
    store: () => undefined,
    copyRuns: () => undefined,
    drop() {},
  }
  const define = (numbered: Partial<NumberedPages>) =>
    defineBackup({ name: 'tried', medium: 'test', pageSizeBytes, numbered: { ...medium, ...numbered } })

  it('hands its reservations to store, and refuses those of others', async () => {
    const seen: unknown[] = []
    const backup = define({
      store(_first, _spans, { reservation }) {
        seen.push(reservation)
        return undefined
      },
    })
    const reservation = await backup.reserve(pageSizeBytes)
    await backup.backupPages([new Uint8Array(pageSizeBytes)], { reservation })
    expect(seen).toEqual([reservation])
    const foreign = await inner.reserve(pageSizeBytes)
    await expect(
      backup.backupPages([new Uint8Array(pageSizeBytes)], { reservation: foreign }),
    ).rejects.toThrow(TypeError)
    expect(define({ reserve: undefined }).capabilities.reserves).toBe(false)
  })

  it.each<[string, Partial<NumberedPages>]>([
    ['neither capacityBytes nor bytesAvailable', { bytesAvailable: undefined }],
    ['both capacityBytes and reserve', { capacityBytes: pageSizeBytes }],
    ['neither copy nor copyRuns', { copyRuns: undefined }],
    ['both copy and copyRuns', { copy: () => undefined }],
  ])('refuses %s', (_, numbered) => {
    expect(() => define(numbered)).toThrow(TypeError)
  })

  it('gives copyRuns many runs at once, in slices, and counts a prefix over all of them', async () => {
    const calls: { first: number; count: number }[][] = []
    const backup = define({
      slicePages: 4,
      copyRuns(handles) {
        calls.push([...handles])
        return calls.length === 2 ? { pages: 1, error: new SpillwayError('EIO', 'tried') } : undefined
      },
    })
    const [{ first }] = (await backup.backupPages([new Uint8Array(9 * pageSizeBytes)])).handles
    const runs = [0, 2, 4]
      .map((at) => ({ first: first + at, count: 1 }))
      .concat({ first: first + 5, count: 4 })
    const { copied, error } = await backup.copyPages(runs, [new Uint8Array(7 * pageSizeBytes)])
    expect(calls).toEqual([
      [...runs.slice(0, 3), { first: first + 5, count: 1 }],
      [{ first: first + 6, count: 3 }],
    ])
    expect(copied).toBe(5)
    expect(error).toMatchObject({ code: 'EIO' })
  })

  it('says ESTALE of a page that was dropped under way, whatever the medium says of it', async () => {
    let release = () => {}
    const backup = define({
      copyRuns: () =>
        new Promise((resolve) => {
          release = () => resolve({ pages: 2, error: new SpillwayError('EIO', 'not there') })
        }),
    })
    const [{ first }] = (await backup.backupPages([new Uint8Array(4 * pageSizeBytes)])).handles
    const copy = backup.copyPages([{ first, count: 4 }], [new Uint8Array(4 * pageSizeBytes)])
    await backup.drop([{ first: first + 2, count: 1 }])
    release()
    expect(await copy).toMatchObject({ copied: 2, error: { code: 'ESTALE', handle: first + 2 } })
  })
})

describe('StagingBuffers', () => {
  it('never has more than it may, gives them in turn, and an abort ends a wait', async () => {
    const staging = new StagingBuffers(2, 4096)
    const held = [staging.take(), staging.take()]
    const order: string[] = []
    const { signal, abort } = ((controller) => ({
      signal: controller.signal,
      abort: () => controller.abort('enough'),
    }))(new AbortController())
    const first = Promise.resolve(staging.take()).then((buffer) => {
      order.push('first')
      return buffer
    })
    const aborted = Promise.resolve(staging.take(signal))
    const last = Promise.resolve(staging.take()).then((buffer) => {
      order.push('last')
      return buffer
    })
    abort()
    await expect(aborted).rejects.toMatchObject({ code: 'EINTR', cause: 'enough' })
    for (const buffer of held) staging.give(await buffer)
    await Promise.all([first, last])
    expect(order).toEqual(['first', 'last'])
    expect(staging.heldBytes).toBe(8192)
    for (const buffer of await Promise.all([first, last])) {
      buffer.memory.fill(7)
      staging.give(buffer)
    }
    staging.close()
    expect(staging.heldBytes).toBe(0)
    expect((await first).memory.every((byte) => byte === 0)).toBe(true)
  })
})
