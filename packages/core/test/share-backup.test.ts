import { describe, expect, it } from 'vitest'
import { faultyBackup, memoryBackup, shareBackup } from '../src/index.ts'

const pages = (count: number): Uint8Array => new Uint8Array(count * 4096)

describe('shareBackup', () => {
  it('refuses what is no backup, and says to await a promise of one', () => {
    for (const [given, said] of [
      [{}, /shareBackup takes a backup; it was given \[object Object\]/],
      [undefined, /it was given undefined/],
      [Promise.resolve(memoryBackup()), /it was given a promise: await it/],
    ] as const) {
      expect(() => shareBackup(given as never)).toThrow(said)
    }
  })

  it('T84: closes the backup exactly once, after the last reference, whatever the order', async () => {
    const inner = faultyBackup(memoryBackup())
    const shared = shareBackup(inner)
    const references = Array.from({ length: 5 }, () => shared.reference())
    await Promise.all(references.map((reference) => Promise.all([reference.close(), reference.close()])))
    expect(inner.callsOf('close')).toBe(1)
    expect(shared.references).toBe(0)
    expect(() => shared.reference()).toThrow(/EBADF/)
  })

  it('T84: a reference taken while another closes keeps the backup open', async () => {
    const inner = memoryBackup()
    const shared = shareBackup(inner)
    const first = shared.reference()
    const call = first.backupPages([pages(1024)])
    const closing = first.close()
    const second = shared.reference()
    await Promise.all([call, closing])
    expect(await second.bytesAvailable()).toBeGreaterThan(0)
    await second.close()
    await expect(inner.bytesAvailable()).rejects.toMatchObject({ code: 'EBADF' })
  })

  it('T83: handles are unique across references, and good in each of them', async () => {
    const shared = shareBackup(memoryBackup())
    await using one = shared.reference()
    await using other = shared.reference()
    const mine = (await one.backupPages([pages(3).fill(1)])).handles
    const theirs = (await other.backupPages([pages(3).fill(2)])).handles
    const into = pages(3)
    expect((await other.copyPages(mine, [into])).copied).toBe(3)
    expect(into.every((byte) => byte === 1)).toBe(true)
    await one.drop(mine)
    expect((await other.copyPages(theirs, [into])).copied).toBe(3)
    expect(into.every((byte) => byte === 2)).toBe(true)
    await expect(other.drop(mine)).rejects.toMatchObject({ code: 'ESTALE' })
    await other.drop(theirs)
  })

  it('T10, B19: each reference counts what it left behind, and the backup the sum', async () => {
    const inner = memoryBackup()
    const shared = shareBackup(inner)
    const one = shared.reference()
    const other = shared.reference()
    await one.backupPages([pages(3)])
    await other.drop((await other.backupPages([pages(2)])).handles)
    await other.backupPages([pages(1)])
    await one.close()
    expect(one.stats().leakedPages).toBe(3)
    expect(inner.stats().leakedPages).toBe(0)
    await other.close()
    expect(other.stats().leakedPages).toBe(1)
    expect(inner.stats().leakedPages).toBe(4)
  })

  it('gives the space that a closed reference had reserved back to the others', async () => {
    const shared = shareBackup(memoryBackup({ capacityBytes: 200 * 4096 }))
    const one = shared.reference()
    await using other = shared.reference()
    for (let time = 0; time < 100; time++) await one.reserve(time < 99 ? 4096 : 0)
    expect(await other.bytesAvailable()).toBe(101 * 4096)
    await one.close()
    expect(await other.bytesAvailable()).toBe(200 * 4096)
  })

  it('passes a failed close on to the last owner alone', async () => {
    const shared = shareBackup(faultyBackup(memoryBackup(), { faults: [{ method: 'close', code: 'EIO' }] }))
    const one = shared.reference()
    const other = shared.reference()
    await one.close()
    await expect(other.close()).rejects.toMatchObject({ code: 'EIO' })
  })
})
