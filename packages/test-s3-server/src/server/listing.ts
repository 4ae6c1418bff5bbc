import { S3Error } from './errors.ts'
import type { StoredObject } from './store.ts'
import { element } from './xml.ts'

interface ListedBucket {
  readonly objects: ReadonlyMap<string, StoredObject>
  sortedKeys(): readonly string[]
}

function compareKeys(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}

/** Index of the first key after `key`, or from `key` on when it is `inclusive`. */
function lowerBound(keys: readonly string[], key: string, inclusive: boolean): number {
  let low = 0
  let high = keys.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const order = compareKeys(keys[middle]!, key)
    if (order < 0 || (order === 0 && !inclusive)) low = middle + 1
    else high = middle
  }
  return low
}

function limitOf(query: URLSearchParams, maxListKeys: number): number {
  const text = query.get('max-keys') ?? '1000'
  if (!/^\d+$/.test(text)) throw new S3Error(400, 'InvalidArgument', 'Provided max-keys not an integer')
  return Math.min(Number(text), maxListKeys)
}

/**
 * One page of ListObjectsV2 as the content of its document. A common prefix counts as one entry. The continuation token is
 * the last key looked at, so a listing goes on rightly whatever is written or deleted meanwhile.
 */
export function listObjects(
  bucket: ListedBucket,
  bucketName: string,
  query: URLSearchParams,
  maxListKeys: number,
): string {
  const prefix = query.get('prefix') ?? ''
  const delimiter = query.get('delimiter') ?? ''
  const token = query.get('continuation-token')
  const startAfter = query.get('start-after') ?? ''
  const limit = limitOf(query, maxListKeys)
  const encode = query.get('encoding-type') === 'url' ? encodeURIComponent : (text: string) => text
  let after = startAfter
  if (token !== null) {
    after = Buffer.from(token, 'base64url').toString('utf8')
    if (after === '')
      throw new S3Error(400, 'InvalidArgument', 'The continuation token provided is incorrect')
  }

  const keys = bucket.sortedKeys()
  let index = lowerBound(keys, prefix, true)
  if (after !== '') index = Math.max(index, lowerBound(keys, after, false))
  let contents = ''
  let count = 0
  let last = ''
  const commonPrefixes = new Set<string>()
  for (; index < keys.length; index++) {
    const key = keys[index]!
    if (!key.startsWith(prefix)) break
    const cut = delimiter === '' ? -1 : key.indexOf(delimiter, prefix.length)
    const group = cut < 0 ? undefined : key.slice(0, cut + delimiter.length)
    // Keys of a group that an earlier page ended with belong to that page.
    if (group !== undefined && (commonPrefixes.has(group) || (token !== null && after.startsWith(group)))) {
      last = key
      continue
    }
    if (count === limit) break
    count++
    last = key
    if (group !== undefined) {
      commonPrefixes.add(group)
      continue
    }
    const object = bucket.objects.get(key)!
    contents += `<Contents>${element('Key', encode(key))}${element('LastModified', new Date(object.lastModifiedMs).toISOString())}${element('ETag', `"${object.etag}"`)}${element('Size', object.bytes.byteLength)}${element('StorageClass', object.headers['x-amz-storage-class'] ?? 'STANDARD')}</Contents>`
  }
  const truncated = limit > 0 && index < keys.length && keys[index]!.startsWith(prefix)
  let document =
    element('Name', bucketName) +
    element('Prefix', encode(prefix)) +
    element('KeyCount', count) +
    element('MaxKeys', limit) +
    element('IsTruncated', truncated)
  if (delimiter !== '') document += element('Delimiter', encode(delimiter))
  if (startAfter !== '') document += element('StartAfter', encode(startAfter))
  if (token !== null) document += element('ContinuationToken', token)
  if (truncated) document += element('NextContinuationToken', Buffer.from(last).toString('base64url'))
  document += contents
  for (const group of commonPrefixes)
    document += `<CommonPrefixes>${element('Prefix', encode(group))}</CommonPrefixes>`
  return document
}
