import type {
  BackupPagesOptions,
  BackupResult,
  CopyDone,
  CopyResult,
  HandleRun,
  Reservation,
  TransferOptions,
} from '../contract.ts'
import type { ImageStoreParts } from '../images/gated-images.ts'

/**
 * What a backend says of itself, and the few functions that move its pages. `defineBackup` makes the whole `Backup` of it.
 *
 * Exactly one of `numbered` and `placed` is given. It answers who makes the handles:
 *
 *   numbered   defineBackup numbers the pages, one after the other, and never uses a number twice. It knows which are live.
 *              For media with keys: a map, a database, another backup.
 *   placed     the backend makes handles that say where a page lies, and knows itself which are live.
 *              For media with places that are used again: a file, shared memory, a device.
 */
export interface BackupDefinition<Figures extends object = object> {
  /** Names the backup in errors, statistics and dumps. */
  readonly name: string
  /** Size of every page in bytes: a power of two from 4 KiB to 2 MiB. */
  readonly pageSizeBytes: number
  /** Where the bytes lie, for people and reports. */
  readonly medium: string
  /** Pages that one call handles best. @default as many as 2 MiB hold */
  readonly preferredBatchPages?: number | undefined
  /** Calls worth having in flight at once. @default 1 */
  readonly preferredCallsInFlight?: number | undefined
  /** Whether handles are good after the process ended. @default false */
  readonly persistent?: boolean | undefined
  /** Whether other processes can attach to the same store. @default false */
  readonly shareable?: boolean | undefined
  /** Whether bytes that changed behind the backup's back are told with `EBADMSG`. @default false */
  readonly detectsCorruption?: boolean | undefined
  /** Whether the bytes are kept at all. @default true */
  readonly stores?: boolean | undefined
  readonly numbered?: NumberedPages | undefined
  readonly placed?: PlacedPages | undefined
  /**
   * Starts copying as the contract's `startCopy` says; without it the backup has none. Checks, liveness before and after,
   * counting, `close` that waits, and a `done` that throws are taken care of: this only moves the bytes of live pages, at most
   * `sliceBytes` of them, and calls `done` once. It is not asked where `firstNotLive` answers with a promise.
   */
  readonly startCopy?: ((first: number, span: Uint8Array, done: CopyDone) => boolean) | undefined
  /** Its images; arguments are checked and the gate is passed before they are called. */
  readonly images?: ImageStoreParts | undefined
  /** Bytes that the medium holds, in its own units. @default the live pages */
  readonly mediumBytes?: (() => number) | undefined
  /** Counters of its own, added to `stats()`. They may replace the common ones where the backend counts better. */
  readonly figures?: (() => Figures) | undefined
  /** Lets go of the medium. Called once, when no call is in flight any more; `stats()` is told as it was before. */
  readonly release?: (() => void | Promise<void>) | undefined
}

/** What stopped a piece of work, and how many of its pages, from the first on, were moved before. */
export interface Stopped {
  readonly pages: number
  readonly error: Error
}

/** Pages under numbers that `defineBackup` makes: rising, from a random one on, none used twice. */
export interface NumberedPages {
  /** Most bytes it holds; room and reservations follow from it. Without it only the medium knows: `bytesAvailable` is needed. */
  readonly capacityBytes?: number | undefined
  /** Room that the medium has left now, where it knows better than `capacityBytes`. */
  readonly bytesAvailable?: (() => number | Promise<number>) | undefined
  /** Sets space of the medium aside, where there is no `capacityBytes`. `store` finds the reservation in its options. */
  readonly reserve?: ((bytes: number) => Promise<Reservation>) | undefined
  /** Most pages that one call of `store` or `copy` is given; the event loop has its turn between. @default what 1 MiB hold */
  readonly slicePages?: number | undefined
  /**
   * Stores the pages of the spans under `first`, `first + 1`, … Resolves to nothing when all are stored, to what stopped it
   * when only a prefix is. Throws when none is. What it threw is told with its own code, or is `EIO`'s cause.
   */
  store(
    first: number,
    spans: readonly Uint8Array[],
    options: BackupPagesOptions,
  ): undefined | Stopped | Promise<undefined | Stopped>
  /** Fills the spans with the pages `first`, `first + 1`, … Resolves and throws as `store` does. One of `copy` and `copyRuns`. */
  readonly copy?:
    | ((
        first: number,
        spans: readonly Uint8Array[],
        options: TransferOptions,
      ) => undefined | Stopped | Promise<undefined | Stopped>)
    | undefined
  /** The same for pages from many places at once, for media that take them side by side; as many as `slicePages` in all. */
  readonly copyRuns?:
    | ((
        handles: readonly HandleRun[],
        spans: readonly Uint8Array[],
        options: TransferOptions,
      ) => undefined | Stopped | Promise<undefined | Stopped>)
    | undefined
  /** Releases pages that nobody can name any more: all of them, or it throws and has released none. */
  drop(handles: readonly HandleRun[]): void | Promise<void>
}

/** Pages under handles that the backend makes. It checks by itself, under way, what other calls may have dropped. */
export interface PlacedPages {
  /** Stores a prefix of the pages; `spans` hold `pageCount` pages, one or more. */
  store(spans: readonly Uint8Array[], pageCount: number, options: BackupPagesOptions): Promise<BackupResult>
  /** The first of these handles that is not live, or `undefined`. */
  firstNotLive(handles: readonly HandleRun[]): number | undefined | Promise<number | undefined>
  /** Copies a prefix of pages that were live when the call came, and says `ESTALE` when one is dropped under way. */
  copy(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions,
  ): Promise<CopyResult>
  /**
   * Releases all of the pages, or none of them and returns the first handle that is not live, one named twice included. What
   * takes long may go on in the promise: the handles are stale as soon as this was called.
   */
  drop(handles: readonly HandleRun[]): number | undefined | Promise<number | undefined>
  bytesAvailable(): number | Promise<number>
  /** Sets space aside; without it `reserve` is `ENOSYS`. */
  readonly reserve?: ((bytes: number) => Reservation | Promise<Reservation>) | undefined
  /** Whether a reservation was made here. */
  readonly isOwnReservation?: ((reservation: Reservation) => boolean) | undefined
}
