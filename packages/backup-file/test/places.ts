import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createFsFromVolume, Volume } from 'memfs'
import { afterAll } from 'vitest'
import type { FileSystem } from '../src/index.ts'

/** A directory on the real file system that is gone when the file's tests are over. */
export function scratchDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'spillway-file-'))
  afterAll(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** A file system in memory, as tests inject it. */
export function memoryFileSystem(): FileSystem {
  const fileSystem = createFsFromVolume(new Volume())
  fileSystem.mkdirSync('/spill')
  return fileSystem
}
