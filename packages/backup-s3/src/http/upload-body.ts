/**
 * How pages reach the socket: the body of an upload is a list of pieces, most of them the callers' own memory, and
 * `pageHttpHandler()` writes them from where they are.
 */

/** What a request handler has that sends the pieces of a `pieceCarrier`, and lets go of them at once when aborted. */
export const takesPieces = Symbol.for('spillway.s3.takes-pieces')
export const bodyPieces = Symbol.for('spillway.s3.body-pieces')

/** Ends an attempt whose memory is wanted back by one of several who share the segment. It is made again. */
export class MemoryWanted extends Error {}

/** Pieces that are sent one after the other, and again if need be. */
export class UploadBody {
  readonly pieces: Uint8Array[] = []
  byteLength = 0
  /** Stops the attempt that is reading the pieces; nothing touches them afterwards. */
  #stop: ((reason: Error) => void) | undefined

  /** A body of one piece. */
  static of(piece: Uint8Array): UploadBody {
    const body = new UploadBody()
    body.add(piece)
    return body
  }

  add(piece: Uint8Array): void {
    this.pieces.push(piece)
    this.byteLength += piece.byteLength
  }

  /** Runs an attempt to send the pieces, once more whenever `copyPieces` interrupts it. */
  async attempt(
    signal: AbortSignal | undefined,
    send: (signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    for (;;) {
      // A request that is shorter than it says would be waited for.
      const bytes = this.pieces.reduce((sum, piece) => sum + piece.byteLength, 0)
      if (bytes !== this.byteLength) throw new TypeError('the memory of pages was gone before they were sent')
      const controller = new AbortController()
      const onAbort = () => controller.abort(signal!.reason)
      if (signal?.aborted) onAbort()
      signal?.addEventListener('abort', onAbort, { once: true })
      this.#stop = (reason) => controller.abort(reason)
      try {
        return await send(controller.signal)
      } catch (error) {
        // By the reason and not by the error: a wait that the signal ended says EINTR.
        if (!(controller.signal.reason instanceof MemoryWanted)) throw error
      } finally {
        this.#stop = undefined
        signal?.removeEventListener('abort', onAbort)
      }
    }
  }

  /** Puts copies in the place of pieces whose memory is about to change. */
  copyPieces(first: number, end: number): void {
    this.#stop?.(new MemoryWanted('the memory is wanted back'))
    for (let index = first; index < end; index++) this.pieces[index] = Uint8Array.from(this.pieces[index])
  }
}

/** The pieces as the SDK sees them: nothing that it could read, and no stream, of whose failures it would complain. */
export function pieceCarrier(pieces: readonly Uint8Array[]): Uint8Array {
  return Object.assign(new Uint8Array(0), { [bodyPieces]: pieces })
}
