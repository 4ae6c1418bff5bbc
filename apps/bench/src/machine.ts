import { execFileSync } from 'node:child_process'
import { readFileSync, statfsSync } from 'node:fs'
import { availableParallelism, cpus, release, totalmem, type } from 'node:os'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Machine } from './results.ts'

/** File systems by their magic number, those one is likely to meet. */
const fileSystemNames: Readonly<Record<number, string>> = {
  61267: 'ext4',
  1481003842: 'xfs',
  2435016766: 'btrfs',
  16914836: 'tmpfs',
  2035054128: 'overlayfs',
  26985: 'nfs',
  801189825: 'zfs',
  1702057286: 'fuse',
  4076150800: 'f2fs',
}

export function fileSystemOf(directory: string): string {
  const { type: magic } = statfsSync(directory)
  return fileSystemNames[magic >>> 0] ?? `type 0x${(magic >>> 0).toString(16)}`
}

/** When, with what and on what the figures were measured: the head of every result. */
export function provenance(directory: string) {
  return {
    date: new Date().toISOString(),
    nodeVersion: process.version,
    commit: currentCommit(),
    machine: describeMachine(directory),
  }
}

function describeMachine(directory: string): Machine {
  return {
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    processors: availableParallelism(),
    memoryBytes: totalmem(),
    system: `${type()} ${release()} ${process.arch}`,
    fileSystem: fileSystemOf(directory),
    directory,
  }
}

/** The version of this package. */
export function ownVersion(): string {
  return JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version
}

/**
 * What was measured: in a checkout its commit, `+changes` when the tree differs from it; where the bench is installed, its
 * version, because the repository around it is somebody else's.
 */
function currentCommit(): string {
  const cwd = dirname(fileURLToPath(import.meta.url))
  if (cwd.includes('node_modules')) return `version ${ownVersion()}`
  const options = { cwd, encoding: 'utf8', stdio: 'pipe' } as const
  try {
    const commit = execFileSync('git', ['rev-parse', '--short=12', 'HEAD'], options).trim()
    const changes = execFileSync('git', ['status', '--porcelain', '--untracked-files=no'], options).trim()
    return changes === '' ? commit : `${commit}+changes`
  } catch {
    return 'unknown'
  }
}
