import { randomUUID } from 'node:crypto'
import type { ShmemBackupOptions } from '../src/index.ts'

/** A name that no other test and no other run has. */
export function uniqueName(): string {
  return `spillway-test-${randomUUID()}`
}

/** Every way in which pages can lie in memory. */
export const media: Record<string, () => Pick<ShmemBackupOptions, 'medium' | 'shared'>> = {
  memfd: () => ({ medium: 'memfd' }),
  tmpfs: () => ({ medium: 'tmpfs' }),
  'shared, mapped': () => ({ shared: { name: uniqueName() } }),
  'shared, by calls': () => ({ medium: 'tmpfs', shared: { name: uniqueName() } }),
}
