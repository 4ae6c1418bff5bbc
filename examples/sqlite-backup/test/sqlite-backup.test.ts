import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { Backup } from '@spillway/core'
import { backupSuites } from '@spillway/core/conformance'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { sqliteBackup } from '../src/sqlite-backup.ts'

let directory: string
let opened = 0
const paths = new WeakMap<Backup, string>()

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'sqlite-backup-'))
})
afterAll(() => rm(directory, { recursive: true }))

backupSuites({
  describe,
  it,
  name: 'sqliteBackup',
  async open({ capacityPages }) {
    const path = join(directory, `${opened++}.sqlite`)
    const backup = sqliteBackup({ path, capacityBytes: capacityPages * 4096 })
    paths.set(backup, path)
    return backup
  },
  async corrupt(backup, handle) {
    const database = new DatabaseSync(paths.get(backup)!)
    database.prepare('UPDATE pages SET bytes = zeroblob(4096) WHERE handle = ?').run(handle)
    database.close()
  },
})
