import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs'
import type { HandleRun } from '@spillway/core'
import {
  type AttachedShmemBackup,
  type AttachOptions,
  attachShmemBackup,
  openShmemBackup,
  type ShmemBackup,
  type ShmemBackupOptions,
} from '../../src/index.ts'

/** What a child process does on request; every answer is plain data. */
let owned: ShmemBackup | undefined
let attached: AttachedShmemBackup | undefined

const calls = {
  async open(options: ShmemBackupOptions) {
    owned = await openShmemBackup(options)
    return owned.stats()
  },
  async store(fill: number, pages: number) {
    const result = await owned!.backupPages([new Uint8Array(pages * 4096).fill(fill)])
    if (result.error !== undefined) throw result.error
    return result.handles
  },
  async drop(handles: HandleRun[]) {
    await owned!.drop(handles)
  },
  /** Reserves and releases: the bytes, or the code of the refusal. */
  async reserve(bytes: number) {
    try {
      await using reservation = await owned!.reserve(bytes)
      return reservation.bytes
    } catch (error) {
      return (error as { code: string }).code
    }
  },
  /** Lets another file take all of the file system between the look at its room and the use of it. */
  async storeWhileOthersFill(path: string, pages: number) {
    await owned!.bytesAvailable()
    const fd = openSync(path, 'w')
    try {
      for (;;) writeSync(fd, new Uint8Array(65536))
    } catch {}
    const { handles, error } = await owned!.backupPages([new Uint8Array(pages * 4096).fill(3)])
    closeSync(fd)
    unlinkSync(path)
    return { handles, code: (error as { code?: string } | undefined)?.code }
  },
  async close() {
    await owned?.close()
    await attached?.close()
  },
  async attach(options: AttachOptions) {
    attached = await attachShmemBackup(options)
    return attached.pageSizeBytes
  },
  /** Byte that fills all of the pages, −1 when they differ. */
  async fillOf(handles: HandleRun[], pages: number) {
    const bytes = new Uint8Array(pages * 4096)
    const { error } = await attached!.copyPages(handles, [bytes])
    if (error !== undefined) throw error
    return bytes.every((byte) => byte === bytes[0]) ? bytes[0] : -1
  },
}

export type Calls = typeof calls

process.on('message', async ({ name, values }: { name: keyof Calls; values: unknown[] }) => {
  try {
    const call = calls[name] as (...values: unknown[]) => Promise<unknown>
    process.send!({ value: await call(...values) })
  } catch (error) {
    process.send!({ code: (error as { code?: string }).code ?? 'none', message: String(error) })
  }
})
