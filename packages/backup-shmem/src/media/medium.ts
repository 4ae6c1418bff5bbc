/**
 * Where the bytes lie. Offsets count from the first page. Everything is synchronous, because everything is memory: the
 * callers bring slices small enough for the event loop.
 *
 *            back()                 write()
 *   hole ───────────────▶ memory ◀──────────▶ memory with content
 *     ▲                      │        read()
 *     └──────────────────────┘
 *            giveBack()
 */
export interface Medium {
  /** `'memfd'` or a file on a tmpfs. */
  readonly kind: 'memfd' | 'tmpfs'
  /** Whether bytes are copied through a mapping or by system calls. */
  readonly access: 'mapped' | 'calls'
  /** Whether `write` makes missing memory by itself and reports a lack of it. A mapping cannot: it must be backed. */
  readonly backsOnWrite: boolean
  /** `giveBack` takes whole multiples of this. */
  readonly giveBackUnitBytes: number
  /** Bytes of memory that the system holds for this medium. */
  heldBytes(): number
  /** Makes memory for a range without any; its content is undefined. Throws the system's `ENOSPC` or `ENOMEM`. */
  back(offsetBytes: number, lengthBytes: number): void
  write(offsetBytes: number, from: Uint8Array, fromBytes: number, lengthBytes: number): void
  read(offsetBytes: number, into: Uint8Array, intoBytes: number, lengthBytes: number): void
  /** Returns memory to the system; the content is lost. */
  giveBack(offsetBytes: number, lengthBytes: number): void
  /** Returns everything. Idempotent. */
  close(): void
}
