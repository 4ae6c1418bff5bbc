/** What a service tells of an object. */

export interface StoredObject {
  readonly key: string
  readonly bytes: number
  /** By the service's clock, in milliseconds; undefined where the service does not say: nobody is dead for that. */
  readonly lastModified: number | undefined
}

export interface ObjectInfo {
  readonly bytes: number
  readonly lastModified: number | undefined
  readonly etag: string | undefined
  readonly identity: string | undefined
}
