/** What the actors of a history do. */
import type { Script, Step } from './history.ts'
import { leaseMs } from './history.ts'
import type { Random } from './virtual-host.ts'

const open: Step = { kind: 'open' }
const store: Step = { kind: 'store', pages: 3 }
const storeOne: Step = { kind: 'store', pages: 1 }
const drop: Step = { kind: 'drop' }
const dropAll: Step = { kind: 'dropAll' }
const read: Step = { kind: 'read' }
const close: Step = { kind: 'close' }
const kill: Step = { kind: 'kill' }
const long: Step = { kind: 'wait', milliseconds: leaseMs * 1.2 }
const sleep: Step = { kind: 'sleep', milliseconds: leaseMs * 1.6 }

const history = (...scripts: readonly (readonly Step[])[]): readonly Script[] =>
  scripts.map((steps, index) => ({ name: 'ABC'[index]!, steps }))

/** Short histories, of which every order is looked at. */
export const shortHistories: readonly (readonly Script[])[] = [
  // One after the other, and both at once.
  history([open, store, close], [open, read, store, close]),
  history([open, store, drop, close], [open, read, close], [open, storeOne, close]),
  // Taken over from one that died, or sleeps and comes back.
  history([open, store, drop, kill], [open, read, store, drop, close]),
  history([open, store, sleep, drop, store, read], [open, read, store, close]),
  history([open, store, dropAll, long, storeOne, read, close], [open, read, storeOne, dropAll, close]),
  history([open, store, dropAll, kill], [open, storeOne, kill], [open, read, storeOne, close]),
  // Renewed for a while, with another waiting.
  history([open, storeOne, long, read, close], [open, read, close]),
  // Swept.
  history([open, store, close], [{ kind: 'sweepStores' }], [open, storeOne, read, close]),
  history([open, store, kill], [{ kind: 'sweepStores' }, open, storeOne, read, close]),
  history(
    [open, store, sleep, store, read],
    [{ kind: 'wait', milliseconds: leaseMs * 1.5 }, { kind: 'sweepStores' }],
  ),
  // Scratch.
  history([{ kind: 'openScratch' }, store, drop, read, close], [{ kind: 'sweep' }, { kind: 'sweep' }]),
  history(
    [{ kind: 'openScratch' }, store, sleep, store, read, close],
    [{ kind: 'wait', milliseconds: leaseMs }, { kind: 'sweep' }, { kind: 'sweep' }],
  ),
  history(
    [{ kind: 'openScratch' }, store, long, read, storeOne, close],
    [{ kind: 'openScratch' }, storeOne, kill],
    [{ kind: 'wait', milliseconds: leaseMs }, { kind: 'sweep' }],
  ),
]

/** A random history of up to three actors. */
export function randomHistory(random: Random): readonly Script[] {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!
  if (random() < 0.4) return pick(shortHistories)
  const actors = 2 + Math.floor(random() * 2)
  const isScratch = random() < 0.2
  return Array.from({ length: actors }, (_, index) => {
    const steps: Step[] = []
    if (index > 0 && random() < 0.4) steps.push({ kind: 'wait', milliseconds: leaseMs * random() * 2 })
    if (index > 0 && random() < 0.25) steps.push({ kind: isScratch ? 'sweep' : 'sweepStores' })
    else {
      steps.push({ kind: isScratch ? 'openScratch' : 'open' })
      const length = 1 + Math.floor(random() * 5)
      const sleepFor: Step = { kind: 'sleep', milliseconds: leaseMs * random() * 2.5 }
      const waitFor: Step = { kind: 'wait', milliseconds: leaseMs * random() * 1.5 }
      for (let step = 0; step < length; step++) {
        steps.push(pick([store, store, storeOne, drop, dropAll, read, sleepFor, waitFor]))
      }
      steps.push(pick([close, close, kill, { kind: 'idle' }]))
    }
    return { name: 'ABC'[index]!, steps }
  })
}
