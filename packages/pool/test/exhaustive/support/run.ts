import type { ErrorCode } from '@spillway/core'
import { vi } from 'vitest'
import type { VirtualTime } from '../../model/virtual-time.ts'
import { codeOf, type Operation } from './operations.ts'
import { Scene, type SceneOptions } from './scene.ts'
import { nameOf } from './shapes.ts'

/** What a medium can say. Every place meets three of them with `SPILLWAY_EXHAUSTIVE=1`, else one; all of them take turns. */
export const codes: readonly ErrorCode[] = [
  'ENOSPC',
  'EIO',
  'ENOMEM',
  'EINTR',
  'EBADMSG',
  'ETIMEDOUT',
  'EAGAIN',
  'EDQUOT',
  'EBUSY',
]
export const allOfIt = process.env['SPILLWAY_EXHAUSTIVE'] === '1'
vi.setConfig({ testTimeout: allOfIt ? 3_600_000 : 120_000 })

/** Sizes of buffers in pages, with every mix of orders 0 to 6. Without `SPILLWAY_EXHAUSTIVE=1` a part of the larger ones. */
export const sizes: readonly number[] = Array.from({ length: 64 }, (_, index) => index + 1).filter(
  (size) => allOfIt || size <= 9 || size % 21 === 0 || size === 64,
)

const codesAPlace = allOfIt ? 3 : 1
let turn = 0

export function codesInTurn(): readonly ErrorCode[] {
  return Array.from({ length: codesAPlace }, () => codes[turn++ % codes.length]!)
}

export type Method = 'backupPages' | 'copyPages'

/** Each scene is gone through with a backup that only has `copyPages`, and with one that has `startCopy`, too. */
function variantsOf(options: SceneOptions, method: Method): SceneOptions[] {
  if (method !== 'copyPages') return [options]
  return [options, { ...options, backup: { ...options.backup, startsCopies: true } }]
}

/** Runs an operation once undisturbed, then with a failure at every page that it moves; returns how many failures. */
export async function failAtEveryPage(
  options: SceneOptions,
  operation: Operation,
  method: Method,
  time: VirtualTime,
  which: () => readonly ErrorCode[] = codesInTurn,
): Promise<number> {
  let failures = 0
  for (const variant of variantsOf(options, method)) {
    failures += await failVariantAtEveryPage(variant, operation, method, time, which)
  }
  return failures
}

async function failVariantAtEveryPage(
  options: SceneOptions,
  operation: Operation,
  method: Method,
  time: VirtualTime,
  which: () => readonly ErrorCode[],
): Promise<number> {
  const pages = await undisturbed(options, operation, method, time)
  let failures = 0
  for (let at = 0; at < pages; at++) {
    for (const code of which()) {
      failures++
      const scene = await Scene.build(options, time)
      const before = scene.buffer.residentBytes
      scene.failAt(method, at, code)
      try {
        const outcome = await operation.run(scene)
        await scene.check()
        if (outcome.error === undefined) operation.done?.(scene, outcome)
        else operation.stopped?.(scene, outcome, before)
        await goOn(scene, operation)
      } catch (failure) {
        throw failed(failure, options, operation, `${code} at ${method} page ${at}`)
      }
    }
  }
  return failures
}

/** The same with the signal aborted before every page. */
export async function abortAtEveryPage(
  options: SceneOptions,
  operation: Operation,
  method: Method,
  time: VirtualTime,
): Promise<number> {
  let pages = 0
  for (const variant of variantsOf(options, method)) {
    pages += await abortVariantAtEveryPage(variant, operation, method, time)
  }
  return pages
}

async function abortVariantAtEveryPage(
  options: SceneOptions,
  operation: Operation,
  method: Method,
  time: VirtualTime,
): Promise<number> {
  const pages = await undisturbed(options, operation, method, time)
  for (let at = 0; at < pages; at++) {
    const scene = await Scene.build(options, time)
    const before = scene.buffer.residentBytes
    const controller = new AbortController()
    scene.backup.script = (called, index) => {
      if (called === method && index === at) controller.abort(new Error('enough'))
      return undefined
    }
    try {
      const outcome = await operation.run(scene, controller.signal)
      await scene.check()
      if (outcome.error === undefined) {
        operation.done?.(scene, outcome)
      } else {
        if (codeOf(outcome.error) !== 'EINTR') throw outcome.error
        operation.stopped?.(scene, outcome, before)
      }
      await goOn(scene, operation)
    } catch (failure) {
      throw failed(failure, options, operation, `abort at ${method} page ${at}`)
    }
  }
  return pages
}

/** How many pages the operation moves when nothing stops it. */
export async function undisturbed(
  options: SceneOptions,
  operation: Operation,
  method: Method,
  time: VirtualTime,
): Promise<number> {
  const scene = await Scene.build(options, time)
  try {
    const outcome = await operation.run(scene)
    if (outcome.error !== undefined) throw outcome.error
    await scene.check()
    operation.done?.(scene, outcome)
    const pages = scene.backup.asked[method]
    await scene.finish()
    return pages
  } catch (failure) {
    throw failed(failure, options, operation, 'nothing at all')
  }
}

/** The same call again, with nothing in its way, does the rest. */
export async function goOn(scene: Scene, operation: Operation): Promise<void> {
  scene.heal()
  const outcome = await operation.run(scene)
  if (outcome.error !== undefined) throw outcome.error
  await scene.check()
  operation.done?.(scene, outcome)
  await scene.finish()
}

export function failed(failure: unknown, options: SceneOptions, operation: Operation, what: string): Error {
  const { shape, ...others } = options
  const place = `${operation.name} of [${nameOf(shape)}] with ${what}, ${JSON.stringify(others)}`
  return new Error(`${place}: ${failure instanceof Error ? failure.message : failure}`, { cause: failure })
}
