import type { Pin } from '../../src/index.ts'
import type { Subject, World } from './world.ts'

/** A pin that a history holds. In debug mode its views are copies, whose changes are seen at the release. */
export interface HeldPin {
  readonly pin: Pin
  readonly offset: number
  readonly length: number
  readonly copy: { readonly before: Uint8Array; readonly now: Uint8Array } | undefined
}

/** Notes a pin; `known` says whether what it shows can be compared. */
export function holdPin(
  world: World,
  subject: Subject,
  pin: Pin,
  offset: number,
  length: number,
  known: boolean,
): HeldPin {
  const { debug } = world.options
  if (known) comparePin(world, subject, { pin, offset, length, copy: undefined })
  const before = debug ? Uint8Array.from(Buffer.concat(pin.spans)) : new Uint8Array(0)
  const held = { pin, offset, length, copy: debug ? { before, now: before.slice() } : undefined }
  subject.pins.push(held)
  return held
}

/** Compares what a pin shows with what has to be there. */
export function comparePin(world: World, subject: Subject, { pin, offset, length, copy }: HeldPin): void {
  let done = 0
  for (const span of pin.spans) {
    if (copy === undefined) {
      world.compare(subject, offset + done, span)
    } else if (Buffer.compare(span, copy.now.subarray(done, done + span.byteLength)) !== 0) {
      throw new Error('I1: the view of a pin in debug mode has changed by itself')
    }
    done += span.byteLength
  }
  if (done !== length) throw new Error('T41: a pin does not cover its range')
}

/** Writes through a pin; `bytesOf` makes the bytes for each span. */
export function writePin(
  subject: Subject,
  { pin, offset, copy }: HeldPin,
  bytesOf: (length: number) => Uint8Array,
): void {
  let done = 0
  for (const span of pin.spans) {
    const bytes = bytesOf(span.byteLength)
    span.set(bytes)
    if (copy === undefined) subject.oracle.set(bytes, offset + done)
    else copy.now.set(bytes, done)
    done += span.byteLength
  }
}

/** Whether a release changes what others see. */
export function isPending({ copy }: HeldPin): boolean {
  return copy !== undefined && Buffer.compare(copy.before, copy.now) !== 0
}

/** Releases a pin that is no longer among those of its buffer; in debug mode what was changed is seen from now on. */
export function releasePin(subject: Subject, { pin, offset, copy }: HeldPin): void {
  if (copy === undefined) {
    pin.release()
    return
  }
  const { spans } = pin
  pin.release()
  if (spans.some(({ byteLength }) => byteLength !== 0)) throw new Error('debug: a view outlives its pin')
  for (let index = 0; index < copy.now.byteLength; index++) {
    if (copy.now[index] !== copy.before[index]) subject.oracle[offset + index] = copy.now[index]!
  }
}

export function releaseAll(subject: Subject): void {
  for (const held of subject.pins.splice(0)) releasePin(subject, held)
}
