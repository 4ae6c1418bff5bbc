import type { Backup, HandleRun } from '@spillway/core'
import { expect } from 'vitest'

export const pageBytes = 4096

/** Pages whose every word tells seed, page and place. */
export function pattern(pages: number, seed: number, pageSizeBytes = pageBytes): Uint8Array {
  const words = new Uint32Array((pages * pageSizeBytes) / 4)
  for (let index = 0; index < words.length; index++)
    words[index] = Math.imul(index + seed * 7919, 0x9e3779b1) ^ seed
  return new Uint8Array(words.buffer)
}

/** Backs up all of the bytes and expects it to work. */
export async function store(backup: Backup, bytes: Uint8Array): Promise<readonly HandleRun[]> {
  const { handles, error } = await backup.backupPages([bytes])
  if (error !== undefined) throw error
  return handles
}

export function count(handles: readonly HandleRun[]): number {
  return handles.reduce((pages, run) => pages + run.count, 0)
}

/** Restores the pages and expects these bytes. */
export async function expectHeld(
  backup: Backup,
  handles: readonly HandleRun[],
  bytes: Uint8Array,
): Promise<void> {
  const into = new Uint8Array(bytes.byteLength).fill(0xa5)
  expect(count(handles)).toBe(bytes.byteLength / backup.capabilities.pageSizeBytes)
  expect(await backup.copyPages(handles, into.byteLength === 0 ? [] : [into])).toEqual({
    copied: count(handles),
  })
  expect(Buffer.compare(into, bytes)).toBe(0)
}

/** Runs that name the pages of these runs one by one, in order. */
export function singles(handles: readonly HandleRun[]): HandleRun[] {
  return handles.flatMap(({ first, count: pages }) =>
    Array.from({ length: pages }, (_, page) => ({ first: first + page, count: 1 })),
  )
}
