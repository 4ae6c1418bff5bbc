import assert from 'node:assert/strict'
import { Buffer } from 'node:buffer'
import type { Backup, BackupResult, HandleRun } from '../contract.ts'
import { isSpillwayError, type SpillwayError } from '../errors.ts'

/** A backup under test, with the steps that most tests are made of. */
export class Subject {
  readonly backup: Backup
  readonly pageSizeBytes: number
  /** Pages that the backup was opened for. */
  readonly capacityPages: number
  readonly #memory: (bytes: number) => Uint8Array

  constructor(
    backup: Backup,
    capacityPages: number,
    memory: (bytes: number) => Uint8Array = (bytes) => new Uint8Array(bytes),
  ) {
    this.backup = backup
    this.pageSizeBytes = backup.capabilities.pageSizeBytes
    this.capacityPages = capacityPages
    this.#memory = memory
  }

  /** Pages whose every byte depends on seed, page and position. */
  pattern(pageCount: number, seed: number): Uint8Array {
    const bytes = new Uint8Array(pageCount * this.pageSizeBytes)
    fillPattern(bytes, seed)
    return bytes
  }

  /** Pages that can be stored in half of their size, and where `withSameFilled` every fourth, one word all over, in next to nothing. */
  compressible(pageCount: number, seed: number, withSameFilled: boolean): Uint8Array {
    const bytes = this.pattern(pageCount, seed)
    for (let page = 0; page < pageCount; page++) {
      const isSameFilled = withSameFilled && page % 4 === 3
      const text = isSameFilled ? wordFor(page + seed) : `page ${page} of ${seed} has row after row; `
      const start = page * this.pageSizeBytes
      const end = isSameFilled ? this.pageSizeBytes : this.pageSizeBytes / 2
      for (let at = 0; at < end; at++) bytes[start + at] = text.charCodeAt(at % text.length)
    }
    return bytes
  }

  /** Memory that holds something else, so that a copy that does nothing is seen. */
  dirty(pageCount: number): Uint8Array {
    return new Uint8Array(pageCount * this.pageSizeBytes).fill(0xa5)
  }

  /** The same for started copies: memory that the backup takes as it is. */
  landing(pageCount: number): Uint8Array {
    return this.#memory(pageCount * this.pageSizeBytes).fill(0xa5)
  }

  /** Backs up all of the spans, empty ones left out, and expects it to work. */
  async store(...memory: Uint8Array[]): Promise<readonly HandleRun[]> {
    const spans = memory.filter(({ byteLength }) => byteLength > 0)
    const result = await this.backup.backupPages(spans)
    this.assertComplete(result, spans)
    return result.handles
  }

  assertComplete(result: BackupResult, spans: readonly Uint8Array[]): void {
    if (result.error !== undefined) throw result.error
    assert.equal(countOf(result.handles), this.pagesOf(spans), 'every page has its handle')
  }

  pagesOf(spans: readonly Uint8Array[]): number {
    return spans.reduce((bytes, span) => bytes + span.byteLength, 0) / this.pageSizeBytes
  }

  /** Copies the pages back and expects these bytes. */
  async assertHolds(handles: readonly HandleRun[], expected: Uint8Array, what = 'page'): Promise<void> {
    const into = this.dirty(countOf(handles))
    const result = await this.backup.copyPages(handles, into.byteLength > 0 ? [into] : [])
    if (result.error !== undefined) throw result.error
    assert.equal(result.copied, countOf(handles), 'every page was copied')
    this.assertBytes(into, expected, what)
  }

  /** Compares bytes; a backup that keeps nothing is not asked. */
  assertBytes(actual: Uint8Array, expected: Uint8Array, what = 'page'): void {
    if (!this.backup.capabilities.stores) return
    if (asBuffer(actual).equals(asBuffer(expected))) return
    assert.equal(actual.byteLength, expected.byteLength)
    for (let index = 0; index < actual.byteLength; index++) {
      if (actual[index] === expected[index]) continue
      const page = Math.floor(index / this.pageSizeBytes)
      const offset = index % this.pageSizeBytes
      assert.fail(`${what} ${page} differs at byte ${offset}: ${actual[index]}, expected ${expected[index]}`)
    }
  }

  /** Backs up single pages until the backup is full; returns them in order. */
  async fill(seed: number): Promise<{ handles: number[]; bytes: Uint8Array[]; error: SpillwayError }> {
    const handles: number[] = []
    const bytes: Uint8Array[] = []
    for (let page = 0; page <= this.capacityPages; page++) {
      const content = this.pattern(1, seed + page)
      const result = await this.backup.backupPages([content])
      if (result.error !== undefined) {
        assert.deepEqual(result.handles, [], 'a page is stored whole or not at all')
        return { handles, bytes, error: asFullError(result.error) }
      }
      handles.push(result.handles[0].first)
      bytes.push(content)
    }
    assert.fail(`open() was asked for ${this.capacityPages} pages, and the backup took more`)
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** Eight characters: all zeros, all the same, or different ones. */
function wordFor(number: number): string {
  if (number % 3 === 0) return '\0'.repeat(8)
  return number % 3 === 1 ? 'z'.repeat(8) : `word${number % 10}-ab`.slice(0, 8)
}

function fillPattern(bytes: Uint8Array, seed: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
  let state = (Math.imul(seed + 1, 0x9e3779b1) ^ 0x5bd1e995) >>> 0 || 1
  for (let index = 0; index < words.length; index++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[index] = state
  }
}

/** Checks that an error says that there is no more room: a full medium or a quota. */
export function asFullError(error: Error): SpillwayError {
  if (!isSpillwayError(error)) throw error
  assert.ok(
    error.code === 'ENOSPC' || error.code === 'EDQUOT',
    `expected ENOSPC or EDQUOT, got ${error.code}`,
  )
  return error
}

export function countOf(handles: readonly HandleRun[]): number {
  return handles.reduce((count, run) => count + run.count, 0)
}

/** The handles one by one, in order. */
export function handlesOf(runs: readonly HandleRun[]): number[] {
  return runs.flatMap(({ first, count }) => Array.from({ length: count }, (_, index) => first + index))
}

/** Runs of one handle each. */
export function singles(handles: readonly number[]): HandleRun[] {
  return handles.map((first) => ({ first, count: 1 }))
}

/** Expects a rejection with this code. */
export async function rejectsWith(code: string, call: () => Promise<unknown>): Promise<void> {
  await assert.rejects(call, (error) => {
    if (!isSpillwayError(error)) throw error
    assert.equal(error.code, code)
    return true
  })
}

/** Expects a rejection that blames the caller, with this class. */
export async function refuses(
  kind: typeof TypeError | typeof RangeError,
  what: string,
  call: () => Promise<unknown>,
): Promise<void> {
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof kind, `${what}: expected a ${kind.name}, got ${String(error)}`)
    return true
  })
}
