import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'

/** Writes what was measured, unless `path` says that nobody wants it, and tells where. */
export function writeJson(path: string | boolean, result: unknown): void {
  if (typeof path === 'boolean') return
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, `${JSON.stringify(result, undefined, 1)}\n`)
  console.log(`written: ${path}`)
}
