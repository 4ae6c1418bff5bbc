import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  clearedEntry,
  emptyEntry,
  entryHandle,
  entryPage,
  handleEntry,
  isHandle,
  isHandleEntry,
  isPageEntry,
  maxHandle,
  maxPage,
  pageEntry,
} from '../src/tagging.ts'

describe('tagging', () => {
  it('T12: round-trips handles at 0, 1 and the largest', () => {
    for (const handle of [0, 1, 2, 2 ** 31, 2 ** 32, maxHandle - 1, maxHandle]) {
      const entry = handleEntry(handle)
      expect(Number.isSafeInteger(entry)).toBe(true)
      expect(isHandleEntry(entry)).toBe(true)
      expect(isPageEntry(entry)).toBe(false)
      expect(entryHandle(entry)).toBe(handle)
    }
    expect(handleEntry(maxHandle)).toBe(Number.MAX_SAFE_INTEGER)
  })

  it('T12: round-trips pages at 1 and the largest', () => {
    for (const page of [1, 2, 2 ** 31, 2 ** 32, maxPage]) {
      const entry = pageEntry(page)
      expect(isPageEntry(entry)).toBe(true)
      expect(isHandleEntry(entry)).toBe(false)
      expect(entryPage(entry)).toBe(page)
    }
  })

  it('T12: empty is not cleared, and neither is a page', () => {
    expect(emptyEntry).not.toBe(clearedEntry)
    expect(handleEntry(0)).toBe(clearedEntry)
    expect([isPageEntry(emptyEntry), isHandleEntry(emptyEntry)]).toEqual([false, false])
    expect([isPageEntry(clearedEntry), isHandleEntry(clearedEntry)]).toEqual([false, true])
  })

  it('T12: an untagged entry asked for its handle throws, and a handle asked for its page', () => {
    for (const entry of [emptyEntry, pageEntry(1), pageEntry(maxPage)]) {
      expect(() => entryHandle(entry)).toThrow(TypeError)
    }
    for (const entry of [emptyEntry, clearedEntry, handleEntry(7)])
      expect(() => entryPage(entry)).toThrow(TypeError)
  })

  it('T12: any page or handle is told from all others by its one number', () => {
    const entry = fc.oneof(
      fc.record({ kind: fc.constant('page'), value: fc.integer({ min: 1, max: maxPage }) }),
      fc.record({ kind: fc.constant('handle'), value: fc.integer({ min: 0, max: maxHandle }) }),
    )
    fc.assert(
      fc.property(entry, entry, (one, other) => {
        const tag = ({ kind, value }: typeof one): number =>
          kind === 'page' ? pageEntry(value) : handleEntry(value)
        expect(tag(one) === tag(other)).toBe(one.kind === other.kind && one.value === other.value)
      }),
    )
  })

  it('T2: refuses what is no handle or page, and names it', () => {
    for (const value of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, maxHandle + 1]) {
      expect(() => handleEntry(value)).toThrow(RangeError)
      expect(() => handleEntry(value)).toThrow(String(value))
      expect(() => pageEntry(value)).toThrow(RangeError)
    }
    expect(() => pageEntry(0)).toThrow(RangeError)
  })

  it('T2: 0 is never a handle', () => {
    expect([1, maxHandle].every(isHandle)).toBe(true)
    expect([0, -1, 1.5, Number.NaN, maxHandle + 1].some(isHandle)).toBe(false)
  })
})
