import { verifyStore } from '@spillway/backup-file'
import { isSpillwayError } from '@spillway/core'
import prettyBytes from 'pretty-bytes'
import { UsageError } from './usage-error.ts'

/** Why a store was not looked at; what is found in one is something else. */
const notLookedAt: ReadonlySet<string> = new Set([
  ...['EBUSY', 'EEXIST', 'ENOENT', 'EPERM', 'EACCES', 'EROFS', 'ENOTSUP', 'ENOSYS'],
])

/** The command `verify`: reads every page of every image. Resolves to 0 when nothing is wrong, else 1. */
export async function verifyCommand(path: string, signal: AbortSignal): Promise<number> {
  let pages = 0
  let damagedImages = 0
  const { images, problems, pageSizeBytes } = await verifyStore({
    path,
    signal,
    onImage: (report) => {
      pages += report.pages
      if (report.problems.length > 0) damagedImages++
      console.log(
        `${report.problems.length > 0 ? '✗' : '✓'} ${report.name}: ${counted(report.pages, 'page')}`,
      )
      for (const problem of report.problems) console.log(`    ${problem}`)
    },
  }).catch((failure: unknown) => {
    throw isSpillwayError(failure) && notLookedAt.has(failure.code)
      ? new UsageError(failure.message)
      : failure
  })
  for (const problem of problems) console.log(`✗ ${problem}`)
  const read = `${counted(images.length, 'image')}, ${prettyBytes(pages * pageSizeBytes, { binary: true })} read`
  if (problems.length + damagedImages === 0) {
    console.log(`every page is what was saved: ${read}`)
    return 0
  }
  console.log(`${counted(damagedImages, 'image')} damaged: ${read}`)
  return 1
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`
}
