import { mebibyte } from '../sizes.ts'
import type { CeilingOrder } from './measure.ts'

const blockBytes = 2 * mebibyte

/**
 * Copies the set from one warm memory to another, in blocks of 2 MiB: with `TypedArray.set`, and with the C library's
 * `memcpy`. The memory is mapped with huge pages where native is there, as the pool's is, or a slow memory would make a
 * low ceiling.
 */
export async function measureMemoryCopies(
  { rounds, setBytes }: CeilingOrder,
  notes: string[],
): Promise<Record<string, number[]>> {
  const [source, target] = await twoMemories(setBytes, notes)
  const figures: Record<string, number[]> = { typedArraySet: [] }
  const ways: [string, (target: Uint8Array, source: Uint8Array) => void][] = [
    ['typedArraySet', (into, from) => into.set(from)],
  ]
  const memcpy = await loadMemcpy(notes)
  if (memcpy !== undefined) {
    figures['memcpy'] = []
    ways.push(['memcpy', memcpy])
  }
  const blocks: [Uint8Array, Uint8Array][] = []
  for (let start = 0; start < setBytes; start += blockBytes) {
    blocks.push([target.subarray(start, start + blockBytes), source.subarray(start, start + blockBytes)])
  }
  for (let round = 0; round <= rounds; round++) {
    for (const [name, copy] of ways) {
      const start = performance.now()
      for (const [into, from] of blocks) copy(into, from)
      const seconds = (performance.now() - start) / 1000
      if (round > 0) figures[name].push(setBytes / seconds)
    }
  }
  return figures
}

async function twoMemories(setBytes: number, notes: string[]): Promise<[Uint8Array, Uint8Array]> {
  try {
    const { Mapping } = await import('@spillway/native')
    const memories = [1, 2].map((value) =>
      Mapping.anonymous(setBytes, { hugePages: true }).view(0, setBytes).fill(value),
    )
    return [memories[0], memories[1]]
  } catch (failure) {
    notes.push(`memory copies use ordinary array buffers: ${(failure as Error).message}`)
    return [new Uint8Array(setBytes).fill(1), new Uint8Array(setBytes).fill(2)]
  }
}

async function loadMemcpy(
  notes: string[],
): Promise<((target: Uint8Array, source: Uint8Array) => void) | undefined> {
  try {
    const { default: koffi } = await import('koffi')
    const library = koffi.load(process.platform === 'darwin' ? 'libSystem.dylib' : 'libc.so.6')
    const memcpy = library.func('void *memcpy(void *target, void *source, size_t length)')
    return (target, source) => memcpy(target, source, source.byteLength)
  } catch (failure) {
    notes.push(`memcpy of the C library was not measured: ${(failure as Error).message}`)
    return undefined
  }
}
