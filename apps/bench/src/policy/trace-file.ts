import { readFileSync } from 'node:fs'
import { UsageError } from '../usage-error.ts'
import type { Trace } from './trace.ts'

/** A page number beyond this is a mistake: the simulators have arrays of all pages. */
const mostPages = 2 ** 24

/**
 * Reads a trace from a file with one access a line: `r` or `w` and the number of a page. Empty lines are skipped.
 *
 * Throws `UsageError` that names the line.
 */
export function readTrace(path: string): Trace {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (failure) {
    throw new UsageError(`--file '${path}' cannot be read (${(failure as NodeJS.ErrnoException).code})`)
  }
  const pages: number[] = []
  const writes: number[] = []
  let pageCount = 0
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue
    const [, verb, number] = /^\s*([rw])\s+(\d+)\s*$/.exec(line) ?? []
    if (verb === undefined || Number(number) >= mostPages) {
      throw new UsageError(
        `'${path}' line ${index + 1} is '${line.slice(0, 40)}'; a line is r or w and a page number below ${mostPages}`,
      )
    }
    pages.push(Number(number))
    writes.push(verb === 'w' ? 1 : 0)
    pageCount = Math.max(pageCount, Number(number) + 1)
  }
  if (pages.length === 0) throw new UsageError(`trace '${path}' is empty; it has no accesses`)
  return {
    name: path.split('/').at(-1)!,
    bufferPages: [pageCount],
    pages: Uint32Array.from(pages),
    writes: Uint8Array.from(writes),
  }
}
