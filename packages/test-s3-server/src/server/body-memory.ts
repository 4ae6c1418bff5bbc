/**
 * Memory of large bodies, used again. Fresh memory costs this server more than all else it does with an upload of 8 MiB:
 * the kernel hands it out page by page while it is written for the first time.
 */

const smallestBytes = 64 * 1024
const warmPieceBytes = 8 * 1024 ** 2 + 64 * 1024

/** Memory that goes back when its last user released it. */
export class Lease {
  readonly bytes: Buffer
  readonly #memory: BodyMemory | undefined
  readonly #whole: Buffer
  #users = 1

  constructor(bytes: Buffer, whole: Buffer, memory: BodyMemory | undefined) {
    this.bytes = bytes
    this.#whole = whole
    this.#memory = memory
  }

  retain(): void {
    this.#users++
  }

  release(): void {
    this.#users--
    if (this.#users === 0) this.#memory?.giveBack(this.#whole)
    if (this.#users < 0) throw new Error('body memory was released twice')
  }
}

export class BodyMemory {
  readonly #idle: Buffer[] = []
  readonly #idleLimitBytes: number
  #idleBytes = 0

  /** @param warmBytes memory to have ready from the start; at least 256 MiB are kept for use again */
  constructor(warmBytes: number) {
    this.#idleLimitBytes = Math.max(warmBytes, 256 * 1024 ** 2)
    while (this.#idleBytes + warmPieceBytes <= warmBytes) this.giveBack(Buffer.alloc(warmPieceBytes, 1))
  }

  /** Memory for a body; its content is whatever was there before. */
  lease(lengthBytes: number): Lease {
    if (lengthBytes < smallestBytes) {
      const bytes = Buffer.allocUnsafeSlow(lengthBytes)
      return new Lease(bytes, bytes, undefined)
    }
    const whole = this.#take(lengthBytes) ?? Buffer.allocUnsafeSlow(lengthBytes)
    return new Lease(whole.subarray(0, lengthBytes), whole, this)
  }

  giveBack(whole: Buffer): void {
    if (this.#idleBytes + whole.byteLength > this.#idleLimitBytes) return
    this.#idle.push(whole)
    this.#idleBytes += whole.byteLength
  }

  /** The one used last that is large enough and not wasteful. */
  #take(lengthBytes: number): Buffer | undefined {
    for (let index = this.#idle.length - 1; index >= 0; index--) {
      const whole = this.#idle[index]!
      if (whole.byteLength < lengthBytes || whole.byteLength > 1.5 * lengthBytes) continue
      this.#idle.splice(index, 1)
      this.#idleBytes -= whole.byteLength
      return whole
    }
    return undefined
  }
}
