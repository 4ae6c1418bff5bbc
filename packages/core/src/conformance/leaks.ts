import assert from 'node:assert/strict'
import { delay } from '../host/timers.ts'
import type { Suite } from './suite.ts'

const rounds = 40
/** Less than all pages of the rounds, were they kept (7.5 MiB at the smallest page size), and more than the noise. */
const growthLimitBytes = 6 * 2 ** 20

/** Memory and medium stay flat over many rounds; the first needs `node --expose-gc` to be seen. */
export function leaks({ test, open }: Suite): void {
  test('holds no more after many rounds than after a few', async (subject) => {
    const bytes = subject.pattern(48, 150)
    const round = async (): Promise<void> => {
      const handles = await subject.store(bytes)
      await subject.backup.copyPages(handles, [bytes])
      await subject.backup.drop(handles)
    }
    for (let time = 0; time < 10; time++) await round()
    const mediumBytes = subject.backup.stats().mediumBytes
    const memoryBytes = await heldBytes()
    for (let time = 0; time < rounds; time++) await round()
    assert.equal(subject.backup.stats().livePages, 0)
    // Some media release a moment later what was dropped.
    const grown = () => subject.backup.stats().mediumBytes - mediumBytes
    for (let waits = 0; grown() > growthLimitBytes && waits < 100; waits++) await delay(100)
    const mediumGrowth = grown()
    assert.ok(mediumGrowth <= growthLimitBytes, `the medium grew by ${mediumGrowth} bytes`)
    const growth = (await heldBytes()) - memoryBytes
    assert.ok(growth <= growthLimitBytes, `memory grew by ${growth} bytes`)
  })

  test('opens and closes many times without holding on to what it had', async () => {
    for (let time = 0; time < 8; time++) {
      await using backup = (await open(8)).backup
      await backup.backupPages([new Uint8Array(backup.capabilities.pageSizeBytes * 4)])
    }
    const last = await open(8)
    await last.store(last.pattern(8, 151))
    await last.backup.close()
    assert.equal(last.backup.stats().leakedPages, last.backup.capabilities.persistent ? 0 : 8)
  })
}

/** Bytes that are still reachable, as far as it can be told. */
async function heldBytes(): Promise<number> {
  const { gc } = globalThis as { gc?: () => void }
  if (gc === undefined) return 0
  gc()
  // Memory outside the heap is counted off only in a later turn.
  await delay(5)
  gc()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}
