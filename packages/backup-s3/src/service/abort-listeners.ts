/**
 * Listeners of signals that many calls share. A signal looks through all its listeners when one is added or removed, so
 * that n calls with one signal cost n²; here each signal has one listener, for all of them.
 */
const listeners = new WeakMap<AbortSignal, Set<() => void>>()

/** Calls back once when the signal is aborted, which it is not yet. `listener` must not throw. */
export function onAbort(signal: AbortSignal, listener: () => void): void {
  const known = listeners.get(signal)
  if (known !== undefined) {
    known.add(listener)
    return
  }
  const all = new Set([listener])
  listeners.set(signal, all)
  const tellAll = () => {
    listeners.delete(signal)
    for (const one of all) one()
  }
  signal.addEventListener('abort', tellAll, { once: true })
}

/** Takes a listener back. */
export function offAbort(signal: AbortSignal, listener: () => void): void {
  listeners.get(signal)?.delete(listener)
}
