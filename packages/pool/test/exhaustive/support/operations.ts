import { isSpillwayError } from '@spillway/core'
import { page } from '../../support/bytes.ts'
import { noise, type Scene } from './scene.ts'

export interface Outcome {
  readonly pages?: number
  readonly error?: unknown
}

/** Something that a pool does, made again and again with a failure at another place. */
export interface Operation {
  readonly name: string
  /** Does it, and tells what stopped it; `signal` is for those that take one. */
  run(scene: Scene, signal?: AbortSignal): Promise<Outcome>
  /** What holds when it was done to its end. */
  done?(scene: Scene, outcome: Outcome): void
  /** What holds when it was stopped; `before` is how many bytes were resident. */
  stopped?(scene: Scene, outcome: Outcome, before: number): void
}

function claim(holds: boolean, what: string): void {
  if (!holds) throw new Error(what)
}

async function caught(call: Promise<unknown>): Promise<Outcome> {
  try {
    await call
    return {}
  } catch (error) {
    return { error }
  }
}

export const backup: Operation = {
  name: 'backup',
  run: ({ buffer }, signal) => buffer.backup({ signal }),
  done: ({ buffer }) => claim(buffer.residentBytes === 0, 'T39: pages are left after a full backup'),
  stopped({ buffer }, { pages }, before) {
    claim(before - buffer.residentBytes === pages! * page, `T32: ${pages} pages reported`)
  },
}

export const atomicBackup: Operation = {
  name: 'atomic backup',
  run: ({ buffer }, signal) => buffer.backup({ atomic: true, signal }),
  done: backup.done!,
  stopped({ buffer }, { pages }, before) {
    claim(pages === 0 && buffer.residentBytes === before, 'T63: a part of it has left')
  },
}

export const restore: Operation = {
  name: 'restore',
  run: ({ buffer }, signal) => buffer.restore({ signal }),
  done({ buffer, backup, options }) {
    claim(buffer.backedUpBytes === 0, 'T13: handles are left after a full restore')
    let pages = 0
    for (const { order, state } of options.shape) {
      if (state === 'stored' || state === 'clean') pages += 2 ** order
      if (state === 'partial') pages += 2 ** order
    }
    claim(backup.stats().copiedPages === pages, `T43: ${backup.stats().copiedPages} copies of ${pages} pages`)
  },
}

export const read: Operation = {
  name: 'read',
  async run({ buffer, oracle }, signal) {
    const found = new Uint8Array(oracle.byteLength)
    const outcome = await caught(buffer.read(0, found, { signal }))
    if (outcome.error === undefined) claim(Buffer.compare(found, oracle) === 0, 'I1: wrong bytes were read')
    return outcome
  },
}

export const pin: Operation = {
  name: 'pin',
  async run({ buffer, oracle }, signal) {
    return caught(
      buffer.pin({ signal }).then((pinned) => {
        const found = new Uint8Array(oracle.byteLength)
        let done = 0
        for (const span of pinned.spans) {
          found.set(span, done)
          done += span.byteLength
        }
        claim(Buffer.compare(found, oracle) === 0, 'I1: a pin shows wrong bytes')
        pinned.release()
      }),
    )
  },
}

/** From within the first page to within the last: the edges have to be restored, what is between is overwritten. */
export const write: Operation = {
  name: 'write',
  async run({ buffer, oracle }, signal) {
    const from = page / 2
    const length = oracle.byteLength - page
    const bytes = noise.subarray(5, 5 + length)
    const outcome = await caught(buffer.write(from, bytes, { signal }))
    if (outcome.error === undefined) oracle.set(bytes, from)
    return outcome
  },
}

export const pinToWrite: Operation = {
  name: 'pin to write',
  async run({ buffer, oracle }, signal) {
    return caught(
      buffer.pin({ write: true, signal }).then((pinned) => {
        let done = 0
        for (const span of pinned.spans) {
          span.set(noise.subarray(done + 9, done + 9 + span.byteLength))
          done += span.byteLength
        }
        oracle.set(noise.subarray(9, 9 + oracle.byteLength))
        pinned.release()
      }),
    )
  },
}

export const copy: Operation = {
  name: 'copy',
  async run(scene, signal) {
    const { pool, buffer, oracle, others } = scene
    if (others.length === 0) {
      const target = await pool.allocate(oracle.byteLength, { label: 'target' })
      others.push({ buffer: target, oracle: new Uint8Array(oracle.byteLength) })
    }
    const target = others[0]!
    const outcome = await caught(buffer.copyTo(target.buffer, { signal }))
    if (outcome.error === undefined) target.oracle.set(oracle)
    return outcome
  },
}

/** Another buffer takes all the memory there is: whatever can be evicted has to go. */
export const evict: Operation = {
  name: 'evict',
  async run(scene, signal) {
    const { others } = scene
    const pool = scene.neighbour ?? scene.pool
    if (others.length === 0) {
      const sizeBytes = pool.limitBytes
      others.push({
        buffer: await pool.allocate(sizeBytes, { label: 'evictor' }),
        oracle: new Uint8Array(sizeBytes),
      })
    }
    const { buffer, oracle } = others[0]!
    return caught(
      buffer.pin({ write: true, signal }).then((pinned) => {
        let done = 0
        for (const span of pinned.spans) {
          span.set(noise.subarray(done, done + span.byteLength))
          done += span.byteLength
        }
        oracle.set(noise.subarray(0, oracle.byteLength))
        pinned.release()
      }),
    )
  },
  done: ({ buffer }) => claim(buffer.residentBytes === 0, 'T57: memory is there twice'),
}

export const purge: Operation = {
  name: 'purge',
  async run({ buffer, oracle }) {
    const outcome = await caught(buffer.purge())
    if (outcome.error === undefined) oracle.fill(0)
    return outcome
  },
  done: ({ buffer }) => claim(buffer.residentBytes + buffer.backedUpBytes === 0, 'T36: something is left'),
}

export const shrink: Operation = {
  name: 'shrink',
  async run({ pool }) {
    const before = pool.stats().residentBytes
    const given = await pool.shrink(before)
    // More when the pool is closed meanwhile.
    claim(before - pool.stats().residentBytes >= given, `T29: ${given} bytes reported`)
    return given < before ? { error: 'stopped' } : {}
  },
  done: ({ pool }) => claim(pool.stats().residentBytes === 0, 'T30: memory is left'),
}

export const setLimit: Operation = {
  name: 'setLimit',
  async run(scene, signal) {
    const { pool, budget, options } = scene
    const least = 2 ** options.maxOrder * page
    const outcome = await caught((budget ?? pool).setLimit(least, { signal }))
    claim(outcome.error !== undefined || pool.limitBytes === least, 'T28: the limit was not set')
    claim(scene.residentBytes <= pool.limitBytes, 'I7: more memory than the limit')
    return outcome
  },
}

/** What may stop an operation: a failure of ours, with our code in it. */
export function codeOf(error: unknown): string | undefined {
  return isSpillwayError(error) ? error.code : undefined
}
