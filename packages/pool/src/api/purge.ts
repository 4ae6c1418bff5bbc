import { assertKnownOptions } from '@spillway/core'
import type { Machine } from '../machine.ts'
import { assertMayLeave } from '../operations/discards.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { assertNotPinned, closedBuffer } from '../residency/closed.ts'
import type { PurgeOptions } from './options.ts'
import { assertWholePages } from './ranges.ts'

/** Gives up whole pages of a buffer, and says how many. */
export function purge(
  machine: Machine,
  state: BufferState,
  options: PurgeOptions,
): Promise<{ readonly pages: number }> {
  const { sizeBytes, growth } = state
  const { offset = 0, length = sizeBytes - offset } = options
  // An append may be writing to the rest of the last page.
  const isShared = growth !== undefined && (offset + length) % machine.pageSizeBytes !== 0
  return isShared
    ? growth.inTurn(undefined, () => purgeNow(machine, state, options))
    : purgeNow(machine, state, options)
}

async function purgeNow(
  { pageSizeBytes, residents, discards }: Machine,
  state: BufferState,
  options: PurgeOptions,
): Promise<{ readonly pages: number }> {
  if (state.closing) throw closedBuffer(state)
  assertKnownOptions(options, ['offset', 'length'], 'purge')
  const { offset = 0, length = state.sizeBytes - offset } = options
  assertWholePages(state, offset, length, pageSizeBytes)
  if (length === state.sizeBytes) assertNotPinned(state)
  assertMayLeave(residents, state)
  const end = Math.ceil((offset + length) / pageSizeBytes)
  const pages = await discards.purge(state, Math.floor(offset / pageSizeBytes), end)
  await state.store?.settled()
  return { pages }
}
