import { assertByteCount, assertKnownOptions, pace } from '@spillway/core'
import { pacedCall } from '../ground/paced-call.ts'
import type { Machine } from '../machine.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { assertUsable } from '../residency/closed.ts'
import type { Growth } from '../residency/growth.ts'
import { type ByteSource, bytesAtHand, piecesOfSource } from './byte-sources.ts'
import type { AccessOptions, ReadWriteOptions } from './options.ts'
import { PagedBuffer } from './paged-buffer.ts'

/**
 * A buffer of a length that is not known before: a log, an upload. Made by `pool.allocate(0, { growable: true, maxBytes })`. All other calls
 * take it as a buffer of the bytes that it has now. What is known of its pages grows with it, whatever `maxBytes` is.
 *
 * Calls that change its length, `append` and `truncate`, come one after the other in the order in which they are made.
 */
export class GrowableBuffer extends PagedBuffer {
  readonly #machine: Machine
  readonly #state: BufferState
  readonly #growth: Growth

  /** @internal */
  constructor(machine: Machine, state: BufferState, growth: Growth) {
    super(machine, state)
    this.#machine = machine
    this.#state = state
    this.#growth = growth
  }

  /** Bytes that it has now; the same as `sizeBytes`. */
  get lengthBytes(): number {
    return this.#state.sizeBytes
  }

  /** What it may grow to, in bytes. */
  get maxBytes(): number {
    return this.#growth.maxBytes
  }

  /**
   * Adds the bytes of a source behind the last byte; resolves to the offset at which they begin. All or nothing: the length
   * moves when all bytes are there, and a call that fails or is aborted has changed nothing. What has to be waited for, a stream or an
   * iterable, is taken piece by piece as it comes, and appends that are made meanwhile wait for their turn. A view is not copied first: leave
   * its bytes alone until the call settles.
   *
   * Rejects with `EFBIG` beyond `maxBytes`, `EINTR` when aborted, `EBADF` when the buffer is freed, `ENOMEM` when there is no room, or with what the
   * source or the backup said.
   */
  append(source: ByteSource, options: ReadWriteOptions = {}): Promise<number> {
    const state = this.#state
    const growth = this.#growth
    const { appends, providerGuard } = this.#machine
    const name = 'the source of append'
    return pacedCall(() => {
      assertUsable(state, providerGuard)
      assertKnownOptions(options, ['signal', 'retryMayFail'], 'append')
      const { signal, retryMayFail } = options
      const bytes = bytesAtHand(source, name)
      if (bytes !== undefined && signal?.aborted !== true) {
        const offset = appends.tryAppend(state, growth, bytes)
        if (offset !== undefined) {
          const turn = pace(bytes.byteLength)
          return turn === undefined ? offset : turn.then(() => offset)
        }
      }
      const leastBytes = bytes?.byteLength ?? (source instanceof Blob ? source.size : 0)
      const pieces = (stop: AbortSignal) => piecesOfSource(bytes ?? source, name, stop)
      return appends.append(state, growth, { pieces, leastBytes }, { signal, retryMayFail })
    })
  }

  /**
   * Gives up all bytes from `lengthBytes` on, in memory and in the backup; resolves when they are given up. The length is shorter at once when
   * no append is under way. It only shortens. Rejects with `RangeError` for a length that is greater than the buffer's, `EBUSY` when a pin or
   * a call that is under way covers some of what goes; then nothing has changed. An abort (`EINTR`) ends the wait, before the length changes or for
   * what is being given up.
   */
  truncate(lengthBytes: number, options: AccessOptions = {}): Promise<void> {
    return pacedCall(() => {
      assertUsable(this.#state, this.#machine.providerGuard)
      assertKnownOptions(options, ['signal'], 'truncate')
      assertByteCount(lengthBytes, 'lengthBytes')
      return this.#machine.appends.truncate(this.#state, this.#growth, lengthBytes, options)
    })
  }
}
