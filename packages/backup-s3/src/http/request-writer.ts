import type { Socket } from 'node:net'
import { type HostTimer, startTimer, stopTimer } from '@spillway/core'
import { mayMoveMore } from './pace.ts'

/** What is handed to the socket at once. It keeps no copy: the pieces stay where they are until the system took them. */
const sliceBytes = 512 * 1024
/** TLS encrypts what it is handed before anything else happens. */
const sliceBytesWithTls = 256 * 1024
/** How long a service that was asked for 100 Continue is waited for. Some never say it. */
const continueTimeoutMs = 1_000

/**
 * Writes one request: its head, then the pieces of its body straight from their memory.
 *
 *   head ─▶ (waits for 100 Continue) ─▶ slice ─(taken by the system)─▶ slice ─▶ … ─▶ done
 *
 * Ending the connection ends it at once: no piece is looked at afterwards.
 */
export class RequestWriter {
  readonly #socket: Socket
  readonly #pieces: readonly Uint8Array[]
  readonly #sliceBytes: number
  #piece = 0
  #offset = 0
  #timer: HostTimer | undefined
  #isStopped = false
  /** Whether the system has taken every byte. */
  isDone = false

  constructor(socket: Socket, pieces: readonly Uint8Array[], secure: boolean) {
    this.#socket = socket
    this.#pieces = pieces
    this.#sliceBytes = secure ? sliceBytesWithTls : sliceBytes
  }

  start(head: string | Uint8Array, waitsForContinue: boolean): void {
    if (waitsForContinue) {
      this.#writeHead(head)
      this.#timer = startTimer(() => this.proceed(), continueTimeoutMs)
      return
    }
    this.#socket.cork()
    this.#writeHead(head)
    this.#next()
    this.#socket.uncork()
  }

  #writeHead(head: string | Uint8Array): void {
    if (typeof head === 'string') this.#socket.write(head, 'latin1')
    else this.#socket.write(head)
  }

  /** The service said 100 Continue, or will not. */
  proceed(): void {
    if (this.#timer === undefined) return
    stopTimer(this.#timer)
    this.#timer = undefined
    this.#next()
  }

  /** Goes on, after it has paused for the others. */
  resume(): void {
    this.#next()
  }

  stop(): void {
    stopTimer(this.#timer)
    this.#timer = undefined
    this.#isStopped = true
  }

  #next(): void {
    if (this.#isStopped || this.isDone) return
    try {
      this.#writeSlice()
    } catch (error) {
      // Whoever has the loop turn has others to resume: it ends this connection and nothing else.
      this.#isStopped = true
      this.#socket.destroy(error as Error)
    }
  }

  #writeSlice(): void {
    if (this.#pieces.length === 0) {
      this.isDone = true
      return
    }
    this.#socket.cork()
    let bytes = 0
    while (bytes < this.#sliceBytes && this.#piece < this.#pieces.length) {
      const piece = this.#pieces[this.#piece]
      const chunk = piece.subarray(this.#offset, this.#offset + this.#sliceBytes - bytes)
      if (chunk.byteLength === 0) throw new TypeError('the memory of a piece is gone before it was sent')
      bytes += chunk.byteLength
      this.#offset += chunk.byteLength
      if (this.#offset === piece.byteLength) {
        this.#piece++
        this.#offset = 0
      }
      const isLast = bytes === this.#sliceBytes || this.#piece === this.#pieces.length
      // After an error the connection ends anyway.
      this.#socket.write(chunk, isLast ? (error) => error || this.#taken(bytes) : undefined)
    }
    this.#socket.uncork()
  }

  /** The system has the slice, perhaps since the moment it was offered. */
  #taken(bytes: number): void {
    if (this.#piece === this.#pieces.length) this.isDone = true
    else if (mayMoveMore(bytes, this)) this.#next()
  }
}
