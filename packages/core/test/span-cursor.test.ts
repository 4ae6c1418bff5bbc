import { describe, expect, it } from 'vitest'
import { SpanCursor } from '../src/index.ts'

const spans = (): Uint8Array[] => [Uint8Array.of(0, 1, 2), Uint8Array.of(3), Uint8Array.of(4, 5, 6, 7)]

describe('SpanCursor', () => {
  it('gives the bytes in order, in pieces that lie in one span', () => {
    const cursor = new SpanCursor(spans())
    expect([...cursor.next(2)]).toEqual([0, 1])
    expect([...cursor.next(5)]).toEqual([2])
    expect(cursor.take(4).map((piece) => [...piece])).toEqual([[3], [4, 5, 6]])
    expect([...cursor.next(9)]).toEqual([7])
  })

  it('visits bytes without a view of each piece', () => {
    const given = spans()
    const cursor = new SpanCursor(given)
    cursor.next(1)
    const seen: unknown[] = []
    cursor.each(4, (span, start, length, done) => seen.push([given.indexOf(span), start, length, done]))
    expect(seen).toEqual([
      [0, 1, 2, 0],
      [1, 0, 1, 2],
      [2, 0, 1, 3],
    ])
  })

  it('gives again what a visit that failed was given', () => {
    const cursor = new SpanCursor(spans())
    cursor.next(1)
    const failing = () => {
      let visits = 0
      cursor.each(5, () => {
        if (++visits === 3) throw new Error('no room')
      })
    }
    expect(failing).toThrow('no room')
    expect([...cursor.next(9)]).toEqual([1, 2])
  })

  it('says EFAULT when the memory was detached, shrunk or used up', () => {
    const resizable = new ArrayBuffer(8, { maxByteLength: 8 })
    const detached = new Uint8Array(4)
    const gone: Uint8Array[] = [new Uint8Array(resizable), detached, Uint8Array.of(1)]
    const cursors = gone.map((span) => new SpanCursor([span]))
    for (const cursor of cursors) cursor.next(1)
    resizable.resize(1)
    structuredClone(detached.buffer, { transfer: [detached.buffer] })
    for (const cursor of cursors) {
      expect(() => cursor.next(1)).toThrow(expect.objectContaining({ code: 'EFAULT' }))
      expect(() => cursor.take(1)).toThrow(expect.objectContaining({ code: 'EFAULT' }))
      expect(() => cursor.each(1, () => {})).toThrow(expect.objectContaining({ code: 'EFAULT' }))
    }
  })
})
