import { delay, nowMs, orAbort, systemCodeOf } from '@spillway/core'

/** Between two looks at whether the owner has gone. */
const pauseMs = 10

export interface OwnerWait {
  readonly ownerWaitMs?: number | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * Opens what another may have, as soon as he has it no more. Rejects as `open` does, with `EBUSY` only when `ownerWaitMs` are over, and with
 * `EINTR` when it is aborted while it waits.
 */
export async function openWhenFree<Opened>(
  open: () => Promise<Opened>,
  { ownerWaitMs = 1000, signal }: OwnerWait,
): Promise<Opened> {
  for (const deadline = nowMs() + ownerWaitMs; ; ) {
    let leftMs: number
    try {
      return await open()
    } catch (failure) {
      leftMs = deadline - nowMs()
      if (systemCodeOf(failure) !== 'EBUSY' || leftMs <= 0) throw failure
    }
    await orAbort(delay(Math.min(pauseMs, leftMs)), signal)
  }
}
