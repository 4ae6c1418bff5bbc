import { afterEach, describe, expect, it, vi } from 'vitest'
import { CallGate, splitIntoPages, yieldToEventLoop } from '../src/index.ts'

describe('CallGate', () => {
  it('lets calls in until close, waits for them, and finishes once', async () => {
    const gate = new CallGate('b')
    let leave = (): void => {}
    const call = gate.run(
      () =>
        new Promise<void>((resolve) => {
          leave = resolve
        }),
    )
    let finished = 0
    const finish = (): void => {
      finished++
    }
    const closing = Promise.all([gate.close(finish), gate.close(finish)])
    expect(gate.isOpen).toBe(false)
    expect(() => gate.assertOpen()).toThrow(expect.objectContaining({ code: 'EBADF', backup: 'b' }))
    await expect(gate.run(async () => 1)).rejects.toMatchObject({ code: 'EBADF' })
    expect(finished).toBe(0)
    leave()
    await Promise.all([call, closing])
    expect(finished).toBe(1)
  })

  it('waits for calls that fail, and passes their failure to the caller alone', async () => {
    const gate = new CallGate('b')
    const call = gate.run(async () => {
      await yieldToEventLoop()
      throw new Error('mine')
    })
    await Promise.all([expect(call).rejects.toThrow('mine'), gate.close(() => {})])
  })
})

describe('yieldToEventLoop', () => {
  afterEach(() => vi.unstubAllGlobals())

  it('gives timers and I/O their turn, and does without setImmediate', async () => {
    for (const present of [true, false]) {
      if (!present) vi.stubGlobal('setImmediate', undefined)
      let turns = 0
      const timer = setInterval(() => turns++, 0)
      for (let round = 0; turns === 0 && round < 1_000_000; round++) await yieldToEventLoop()
      clearInterval(timer)
      expect(turns).toBeGreaterThan(0)
    }
  })
})

describe('splitIntoPages', () => {
  it('gives the pages of spans in order, as views of the same memory', () => {
    const spans = [new Uint8Array(4096).fill(1), new Uint8Array(8192).fill(2)]
    const pages = splitIntoPages(spans, 4096)
    expect(pages.map((page) => [page.byteLength, page[0]])).toEqual([
      [4096, 1],
      [4096, 2],
      [4096, 2],
    ])
    pages[2][0] = 9
    expect(spans[1][4096]).toBe(9)
  })
})
