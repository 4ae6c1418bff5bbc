import type { KeySpace } from '../keys.ts'
import { loadFooter } from '../ownership/footers.ts'
import { footerBytes } from '../segments/segment-format.ts'
import type { SegmentObject } from '../segments/segment-table.ts'
import type { S3Service } from '../service/service.ts'

/** Reads the footers of segments that were attached to, each when its checksums are first needed. */
export class FooterLoads {
  readonly #service: S3Service
  readonly #keys: KeySpace
  readonly #underway = new Map<SegmentObject, Promise<void>>()

  constructor(service: S3Service, keys: KeySpace) {
    this.#service = service
    this.#keys = keys
  }

  /** Reads a footer once, whoever else wants it; so no caller's abort can end it. */
  load(object: SegmentObject): Promise<void> {
    let loading = this.#underway.get(object)
    if (loading === undefined) {
      loading = this.#load(object).finally(() => this.#underway.delete(object))
      this.#underway.set(object, loading)
    }
    return loading
  }

  async #load(object: SegmentObject): Promise<void> {
    const { epoch, number, bytes, pages } = object
    const expectedBytes = footerBytes(pages, [{ number, pages }])
    const key = this.#keys.segment(epoch, number)
    const place = { key, objectBytes: bytes, epoch, number, expectedBytes }
    const footer = await loadFooter(this.#service, place)
    object.checksums = footer.checksums
  }
}
