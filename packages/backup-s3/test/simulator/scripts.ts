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
const sweepStores: Step = { kind: 'sweepStores' }
const sweep: Step = { kind: 'sweep' }
const ownSweep: Step = { kind: 'ownSweep' }
const retain: Step = { kind: 'retainFirst' }
const undeletable: Step = { kind: 'undeletable' }
const deletable: Step = { kind: 'deletable' }
const openScratch: Step = { kind: 'openScratch' }
/** The lease is renewed meanwhile. */
const long: Step = { kind: 'wait', milliseconds: leaseMs * 1.2 }
const sleep: Step = { kind: 'sleep', milliseconds: leaseMs * 1.6 }
const stop: Step = { kind: 'stop', milliseconds: leaseMs * 1.6 }
const together = (...steps: readonly Step[]): Step => ({ kind: 'together', steps })
const wait = (leases: number): Step => ({ kind: 'wait', milliseconds: leaseMs * leases })

const history = (...scripts: readonly (readonly Step[])[]): readonly Script[] =>
  scripts.map((steps, index) => ({ name: 'ABC'[index]!, steps }))

/** Short histories, of which every order within bounds is looked at. */
export const shortHistories: readonly (readonly Script[])[] = [
  // One after the other, and both at once.
  history([open, store, close], [open, read, store, close]),
  history([open, store, drop, close], [open, read, close], [open, storeOne, close]),
  // Taken over from one that died, or stands still and comes back.
  history([open, store, drop, kill], [open, read, store, drop, close]),
  history([open, store, sleep, drop, store, read], [open, read, store, close]),
  history([open, store, stop, dropAll, storeOne, read], [open, read, store, close]),
  history([open, store, dropAll, long, storeOne, read, close], [open, read, storeOne, dropAll, close]),
  history([open, store, dropAll, kill], [open, storeOne, kill], [open, read, storeOne, close]),
  // Renewed for a while, with another waiting.
  history([open, storeOne, long, read, close], [open, read, close]),
  // Readers beside who drops, stores and compacts.
  history([open, store, together(read, drop, store), read, close], [open, read, close]),
  history([open, store, together(store, { kind: 'retainFirst' }, read), read, kill], [open, read, close]),
  // Swept.
  history([open, store, close], [sweepStores], [open, storeOne, read, close]),
  history([open, store, kill], [sweepStores, open, storeOne, read, close]),
  history([open, store, sleep, store, read], [wait(1.5), sweepStores]),
  history(
    [open, store, stop, drop, store, read],
    [wait(1.5), sweepStores],
    [wait(1.6), open, storeOne, read],
  ),
  // Scratch.
  history([openScratch, store, drop, read, close], [sweep, sweep]),
  history([openScratch, store, sleep, store, read, close], [wait(1), sweep, sweep]),
  history([openScratch, store, stop, store, read, close], [wait(1), sweep, sweep]),
  history([openScratch, store, long, read, storeOne, close], [openScratch, storeOne, kill], [wait(1), sweep]),
]

/**
 * A random history of up to four actors, in which more goes wrong. `tells`: the service tells the time, and machines may set
 * their clocks back; else the service may set its own back.
 */
export function wideHistory(random: Random, { tells }: { tells: boolean }): readonly Script[] {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!
  const upTo = (end: number) => Math.floor(random() * end)
  const repeat = (steps: () => readonly Step[]) => Array.from({ length: 1 + upTo(3) }, steps).flat()
  const isScratch = tells && random() < 0.25
  const sweepNow = (): Step =>
    random() < 0.3 ? { kind: 'sweepAborted', abortAfter: upTo(40) } : isScratch ? sweep : sweepStores
  const jump = (): Step => {
    const milliseconds = leaseMs * random() * 6
    return { kind: 'jump', milliseconds: !tells && random() < 0.5 ? -milliseconds : milliseconds }
  }
  const owner = (): Step[] => {
    const stand = (): Step => {
      const milliseconds = leaseMs * random() * 2.5
      if (random() < 0.2)
        return { kind: 'setClock', milliseconds: tells && random() < 0.5 ? -milliseconds : milliseconds }
      return { kind: random() < 0.5 ? 'sleep' : 'stop', milliseconds }
    }
    const meanwhile = (last: readonly Step[]) =>
      together(pick([store, drop, ownSweep]), pick([read, retain, dropAll]), pick(last))
    const step = (): Step => {
      const aborted: Step = { kind: 'storeAborted', pages: 3, abortAfter: upTo(6) }
      const both = meanwhile([read, storeOne, store])
      const usual = [store, store, storeOne, drop, dropAll, read, ownSweep]
      return pick([...usual, aborted, stand(), both, wait(random() * 1.5)])
    }
    const abort = random() < 0.3 ? { abortAfter: upTo(45) } : {}
    const opening: Step = { kind: isScratch ? 'openScratch' : 'open', ...abort }
    const end = pick<Step>([close, meanwhile([close]), kill, { kind: 'idle' }])
    return [opening, ...Array.from({ length: 1 + upTo(6) }, step), end]
  }
  return Array.from({ length: 2 + upTo(3) }, (_, index) => {
    const name = 'ABCD'[index]!
    if (index === 0) return { name, steps: owner() }
    const start = random() < 0.5 ? [wait(random() * 2.5)] : []
    const chance = random()
    if (chance < 0.25) return { name, steps: [...start, ...repeat(() => [sweepNow(), wait(random())])] }
    if (chance < 0.35) return { name, steps: [...start, ...repeat(() => [jump(), wait(random())])] }
    if (chance < 0.45) return { name, steps: [...start, undeletable, wait(random() * 3), deletable] }
    return { name, steps: [...start, ...owner()] }
  })
}

/** A random history of up to three actors. */
export function randomHistory(random: Random): readonly Script[] {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!
  if (random() < 0.4) return pick(shortHistories)
  const actors = 2 + Math.floor(random() * 2)
  const isScratch = random() < 0.2
  return Array.from({ length: actors }, (_, index) => {
    const steps: Step[] = []
    if (index > 0 && random() < 0.4) steps.push(wait(random() * 2))
    if (index > 0 && random() < 0.25) steps.push(isScratch ? sweep : sweepStores)
    else {
      steps.push(isScratch ? openScratch : open)
      const length = 1 + Math.floor(random() * 5)
      const stand: Step = {
        kind: random() < 0.5 ? 'sleep' : 'stop',
        milliseconds: leaseMs * random() * 2.5,
      }
      const meanwhile = together(pick([store, drop]), pick([read, retain, dropAll]), pick([read, storeOne]))
      for (let step = 0; step < length; step++) {
        steps.push(
          pick([store, store, storeOne, drop, dropAll, read, stand, meanwhile, wait(random() * 1.5)]),
        )
      }
      steps.push(pick([close, close, kill, { kind: 'idle' }]))
    }
    return { name: 'ABC'[index]!, steps }
  })
}
