import type { Backup, HandleRun } from '@spillway/core'
import { type FileBackupOptions, openFileBackup } from '../../src/index.ts'

// Fills a small file system to the last page, reads everything back, drops a part and fills it again.
const [directory] = process.argv.slice(2)
const batchPages = 400

interface Stored {
  readonly seed: number
  readonly handles: readonly HandleRun[]
}

const content = (seed: number): Uint8Array => {
  const words = new Uint32Array((batchPages * 4096) / 4)
  for (let index = 0; index < words.length; index++)
    words[index] = Math.imul(index ^ (seed << 20), 0x9e3779b1)
  return new Uint8Array(words.buffer)
}
const pagesOf = (handles: readonly HandleRun[]): number =>
  handles.reduce((pages, run) => pages + run.count, 0)

async function fill(
  backup: Backup,
  firstSeed: number,
): Promise<{ stored: Stored[]; code: string | undefined }> {
  const stored: Stored[] = []
  for (let seed = firstSeed; ; seed++) {
    const { handles, error } = await backup.backupPages([content(seed)])
    stored.push({ seed, handles })
    if (error !== undefined) return { stored, code: (error as { code?: string }).code }
  }
}

async function wrongPages(backup: Backup, all: readonly Stored[]): Promise<number> {
  let wrong = 0
  for (const { seed, handles } of all) {
    const pages = pagesOf(handles)
    if (pages === 0) continue
    const into = new Uint8Array(pages * 4096)
    const { copied } = await backup.copyPages(handles, [into])
    wrong += pages - copied
    const expected = content(seed)
    for (let page = 0; page < copied; page++) {
      if (
        Buffer.compare(
          into.subarray(page * 4096, (page + 1) * 4096),
          expected.subarray(page * 4096, (page + 1) * 4096),
        )
      ) {
        wrong++
      }
    }
  }
  return wrong
}

const total = (all: readonly Stored[]): number =>
  all.reduce((pages, { handles }) => pages + pagesOf(handles), 0)

async function report(options: Partial<FileBackupOptions>): Promise<object> {
  await using backup = await openFileBackup({
    directory,
    capacityBytes: 2 ** 30,
    keepFreeBytes: 0,
    ...options,
  })
  const first = await fill(backup, 1)
  const wrong = await wrongPages(backup, first.stored)
  const dropped = first.stored[1]
  await backup.drop(dropped.handles)
  const second = await fill(backup, 1000)
  const kept = first.stored.filter((stored) => stored !== dropped)
  return {
    code: first.code,
    storedPages: total(first.stored),
    wrongPages: wrong,
    droppedPages: pagesOf(dropped.handles),
    storedAfterDrop: total(second.stored),
    wrongPagesAfterDrop: await wrongPages(backup, [...kept, ...second.stored]),
    io: backup.stats().io,
    direct: backup.stats().direct,
  }
}

const reports: object[] = []
for (const io of ['auto', 'threads'] as const) {
  for (const direct of ['auto', false] as const) reports.push(await report({ io, direct }))
}
process.stdout.write(JSON.stringify(reports))
