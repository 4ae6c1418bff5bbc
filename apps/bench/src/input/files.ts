import { existsSync, lstatSync, readdirSync, realpathSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { UsageError } from '../usage-error.ts'

/** One real file of the input. */
export interface InputFile {
  readonly path: string
  readonly lengthBytes: number
  /** When it was last changed: a file that changes while the bench runs cannot be compared with what was read before. */
  readonly changedMs: number
}

/** The default input: every installed `node_modules` tree above this program, and the node executable. */
export function defaultInputPaths(from: string): string[] {
  const paths: string[] = []
  for (let directory = resolve(from); ; directory = dirname(directory)) {
    const candidate = join(directory, 'node_modules')
    if (existsSync(candidate)) paths.push(candidate)
    if (dirname(directory) === directory) break
  }
  paths.push(process.execPath)
  return paths
}

/**
 * All regular files that are not empty, below the paths given, in a fixed order, each once. Symbolic links inside a
 * tree are not followed, so that the tree is read once and nothing outside of it. `skipHidden` leaves out what begins with
 * a dot: caches, which other programs write while the bench reads.
 */
export function listInputFiles(paths: readonly string[], skipHidden = false): InputFile[] {
  const files = new Map<string, InputFile>()
  for (const path of paths) {
    if (!existsSync(path)) {
      throw new UsageError(`--input '${path}' does not exist; give files or directories that can be read`)
    }
    collect(realpathSync(path), files, skipHidden)
  }
  if (files.size === 0) {
    throw new UsageError(`--input '${paths.join("' '")}' holds no file with content; give at least one`)
  }
  return [...files.values()]
}

function collect(path: string, files: Map<string, InputFile>, skipHidden: boolean): void {
  const status = lstatSync(path, { throwIfNoEntry: false })
  if (status === undefined) return // gone since its directory was listed
  if (status.isDirectory()) {
    for (const name of readdirSync(path).sort()) {
      if (!skipHidden || !name.startsWith('.')) collect(join(path, name), files, skipHidden)
    }
  } else if (status.isFile() && status.size > 0 && !files.has(path)) {
    files.set(path, { path, lengthBytes: status.size, changedMs: status.mtimeMs })
  }
}
