import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'

const script = fileURLToPath(new URL('children/many-buffers.ts', import.meta.url))

/** What each of many buffers costs, and what the pool says that it does. */
async function costOf(count: number, sizeBytes: number, writtenBytes: number, ...more: string[]) {
  // Sources of code that is not used any more are megabytes: they stay, or what is measured depends on when they go.
  const options = more.filter((word) => word.startsWith('--'))
  const flags = ['--expose-gc', '--no-flush-bytecode', ...options]
  const words = [count, sizeBytes, writtenBytes, ...more.filter((word) => !options.includes(word))].map(
    String,
  )
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, script, ...words])
  return JSON.parse(stdout) as { costBytes: number; toldBytes: number; count: number }
}

function expectHonest({ costBytes, toldBytes }: { costBytes: number; toldBytes: number }): void {
  expect(toldBytes / costBytes).toBeGreaterThan(0.8)
  expect(toldBytes / costBytes).toBeLessThan(1.2)
}

// What is compiled meanwhile counts as the buffers', too, so the bounds have some bytes to spare.
describe.concurrent('many small buffers', () => {
  it('fit by a hundred thousand into a heap of 128 MiB, and cost what metadataBytes says', async () => {
    const cost = await costOf(100_000, 100, 0, '--max-old-space-size=128')
    expect(cost.count).toBe(100_000)
    expect(cost.costBytes).toBeLessThan(400)
    expectHonest(cost)
  })

  it('cost at most 400 bytes of heap each when they are written to, too', async () => {
    const cost = await costOf(20_000, 100, 100)
    expect(cost.costBytes).toBeLessThan(430)
    expectHonest(cost)
  })

  it('cost no more once they were pinned to be written to', async () => {
    const cost = await costOf(20_000, 100, 100, 'pinned')
    expect(cost.costBytes).toBeLessThan(430)
    expectHonest(cost)
  })

  it('metadataBytes tells what tables of pages cost that are not alike', async () => {
    expectHonest(await costOf(4000, 500_000, 10))
  })
})
