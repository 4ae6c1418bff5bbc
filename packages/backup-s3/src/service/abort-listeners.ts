/**
 * Listeners of signals that many calls share. A signal looks through all its listeners when one is added or removed, so
 * that n calls with one signal cost n²; here each signal has one listener, for all of them.
 */
const shared = new WeakMap<AbortSignal, SharedListener>()

interface SharedListener {
  readonly all: Set<() => void>
  readonly tellAll: () => void
}

/** Calls back once when the signal is aborted, which it is not yet. `listener` must not throw. */
export function onAbort(signal: AbortSignal, listener: () => void): void {
  const known = shared.get(signal)
  if (known !== undefined) {
    known.all.add(listener)
    return
  }
  const all = new Set([listener])
  const tellAll = () => {
    shared.delete(signal)
    for (const one of all) one()
  }
  shared.set(signal, { all, tellAll })
  signal.addEventListener('abort', tellAll, { once: true })
}

/** Takes a listener back. The last one takes that of the signal with it: nothing stays on a signal that outlives its calls. */
export function offAbort(signal: AbortSignal, listener: () => void): void {
  const known = shared.get(signal)
  if (known === undefined || !known.all.delete(listener) || known.all.size > 0) return
  shared.delete(signal)
  signal.removeEventListener('abort', known.tellAll)
}
