/** Longer requests take the device longer than being woken takes. */
const smallBytes = 64 * 1024
const longestMs = 0.15
const mostSkipped = 64

/**
 * Decides whether a ring is looked at in every turn of the event loop, or waits to be woken. Being woken takes about as
 * long as a fast disk takes for a page, so after small requests a look is worth its processor time, for 0.15 ms; where
 * that was in vain, the next 1, 2, 4 … 64 waits go without.
 *
 *     small requests handed over ──▶ looking ──result──▶ next wait: look again
 *                                       └────time is up──▶ next waits: be woken
 */
export class ShortWaits {
  /** When to stop looking; 0 when that is not called for, −1 when it has not begun. */
  #untilMs = 0
  #inVain = 0
  #skip = 0

  /** A request is handed to the kernel. */
  requested(lengthBytes: number): void {
    if (lengthBytes <= smallBytes) this.#untilMs = -1
  }

  /** Requests are under way and nothing has come back: whether to look again in the next turn. */
  isWorthLooking(nowMs: number): boolean {
    if (this.#untilMs === 0) return false
    if (this.#untilMs < 0) {
      if (this.#skip > 0) {
        this.#skip--
        this.#untilMs = 0
        return false
      }
      this.#untilMs = nowMs + longestMs
    } else if (nowMs >= this.#untilMs) {
      this.#inVain = Math.min(mostSkipped, Math.max(1, this.#inVain * 2))
      this.#skip = this.#inVain
      this.#untilMs = 0
      return false
    }
    return true
  }

  /** Something came back while the ring was looked at. */
  succeeded(): void {
    this.#inVain = 0
  }
}
