import { isSpillwayError, SpillwayError } from '@spillway/core'
import type { KeySpace } from '../keys.ts'
import type { RequestScope } from '../service/request-scope.ts'
import type { S3Service } from '../service/service.ts'
import { deleteAll } from './deletions.ts'
import { decodeHead, encodeHead, type Head } from './head.ts'
import { isTaken } from './owner.ts'

/** A head that was the newest when it was read. */
export interface HeadVersion {
  readonly version: number
  readonly head: Head
  /** When it was written, by the service's clock; undefined where the service does not say. */
  readonly writtenMs: number | undefined
}

/** The newest version, as a listing shows it. */
interface Listed {
  readonly version: number
  readonly writtenMs: number | undefined
  readonly older: readonly number[]
  /** What the service's clock said then; undefined where it does not say. */
  readonly serviceNowMs: number | undefined
}

/** What was seen of a register. */
export interface Sighting {
  readonly newest: HeadVersion | undefined
  readonly serviceNowMs: number | undefined
}

/**
 * A register that is changed by compare-and-set, made of objects that are each created once.
 *
 *   heads/0000000007   the newest is what counts
 *   heads/0000000008   ◀── create (If-None-Match: *), then list: the highest? ─▶ changed; a higher one? ─▶ lost
 *
 * - A change of version n is the creation of version n + 1: of any number of racing changes the service lets one through.
 * - Versions below the newest are deleted, the newest never is. So the newest number only rises, and a listing that shows
 *   nothing above n + 1 proves that n was the newest when n + 1 was created. A request that comes late, to a number that
 *   was deleted, is seen by its sender's listing to be below the newest: it changed nothing, and the next change removes it.
 *
 * It needs no more than what every store of this package needs: `If-None-Match: *` and listings that show what was written.
 */
export class HeadRegister {
  readonly #service: S3Service
  readonly #keys: KeySpace
  readonly #backup: string
  /** The version that was read last: a listing that shows it again needs no second look. */
  #known: HeadVersion | undefined
  /** Versions that count no more and may still be there. */
  readonly #stale = new Set<number>()
  #cleaning: Promise<void> | undefined
  /** Requests that `read` made. */
  requests = 0

  constructor(service: S3Service, keys: KeySpace, backup: string) {
    this.#service = service
    this.#keys = keys
    this.#backup = backup
  }

  /** Reads the newest version. Rejects with `ENOTSUP`, `EBADMSG` when it cannot be understood (see `decodeHead`). */
  async read(scope: RequestScope = {}): Promise<Sighting> {
    for (let damaged = 0; ; ) {
      const listed = await this.#list(scope)
      this.requests++
      const { version, writtenMs, serviceNowMs } = listed
      if (version === 0) return { newest: undefined, serviceNowMs }
      if (this.#known?.version !== version) {
        const key = this.#keys.head(version)
        const object = await this.#service.read(key, { ...scope, urgent: true })
        this.requests++
        // Gone means that there is a newer one by now.
        if (object === undefined) continue
        try {
          this.#known = { version, head: decodeHead(object.body, key), writtenMs }
        } catch (error) {
          // What came damaged is asked for once more: the wire may have done it.
          const isDamage = isSpillwayError(error) && (error.code === 'EBADMSG' || error.code === 'ENOTSUP')
          if (!isDamage || ++damaged > 1) throw error
          continue
        }
      }
      return { newest: { ...this.#known, writtenMs }, serviceNowMs }
    }
  }

  /**
   * Makes `head` the version after `from`. Undefined: another change was faster, or came after this one; nothing may be
   * relied on that this one says. Rejects when it cannot be known: the change may be there, or come yet.
   */
  async change(
    from: number,
    head: Omit<Head, 'format'>,
    scope: RequestScope = {},
  ): Promise<HeadVersion | undefined> {
    const version = from + 1
    const body = encodeHead(head)
    try {
      await this.#service.upload(this.#keys.head(version), body, {
        ...scope,
        identity: head.nonce,
        urgent: true,
        stays: true,
      })
    } catch (error) {
      if (isTaken(error)) return undefined
      throw error
    }
    const listed = await this.#list(scope)
    if (listed.version > version) return undefined
    if (listed.version < version) {
      const text = `the service wrote ${this.#keys.head(version)} and does not list it`
      throw new SpillwayError('EIO', text, { backup: this.#backup })
    }
    this.#clean(listed.older)
    this.#known = { version, head: decodeHead(body, 'just written'), writtenMs: listed.writtenMs }
    return this.#known
  }

  /** Waits until older versions were removed, or could not be for as long as the retry policy allows. */
  async settle(): Promise<void> {
    await this.#cleaning
  }

  async #list(scope: RequestScope): Promise<Listed> {
    let serviceNowMs: number | undefined
    const onDate = (time: number) => {
      serviceNowMs ??= time
    }
    let version = 0
    let writtenMs: number | undefined
    const older: number[] = []
    for await (const object of this.#service.list(this.#keys.headsPrefix, {
      ...scope,
      urgent: true,
      onDate,
    })) {
      const number = this.#keys.headVersion(object.key)
      if (number === undefined) continue
      if (number > version) {
        if (version > 0) older.push(version)
        version = number
        writtenMs = object.lastModified
      } else older.push(number)
    }
    return { version, writtenMs, older, serviceNowMs }
  }

  /** Removes versions that count no more, one request at a time. */
  #clean(versions: readonly number[]): void {
    for (const version of versions) this.#stale.add(version)
    this.#cleaning ??= this.#removeStale().finally(() => {
      this.#cleaning = undefined
    })
  }

  async #removeStale(): Promise<void> {
    while (this.#stale.size > 0) {
      const keys = [...this.#stale].map((version) => this.#keys.head(version))
      this.#stale.clear()
      // What the service will not delete for so long is seen, and tried again, by the next change.
      await deleteAll(this.#service, keys, { urgent: true }).catch(() => {})
    }
  }
}
