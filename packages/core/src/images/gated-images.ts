import type { CallGate } from '../call-gate.ts'
import type { ImageContent, ImageStore } from '../contract.ts'
import { HandleRuns } from '../handle-runs.ts'
import { assertKnownOptions, countHandles, isUint8Array } from '../validation.ts'

/** Most bytes of one block of an image. */
export const maxImageBlockBytes = 2 ** 20
/** Most bytes of the name of an image, as UTF-8. */
export const maxImageNameBytes = 200

/** The images of a backup behind its gate, with arguments checked: what its `images` is. */
export function gatedImages(gate: CallGate, images: ImageStoreParts): ImageStore {
  return {
    async save(name, content) {
      assertImageName(name)
      const checked = checkedContent(content)
      return await gate.run(async () => images.save(name, checked))
    },
    async load(name) {
      assertImageName(name)
      return await gate.run(async () => images.load(name))
    },
    names: () => gate.run(async () => images.names()),
    async remove(name) {
      assertImageName(name)
      await gate.run(async () => images.remove(name))
    },
  }
}

/** The calls of an image store, some of which may answer at once. */
export interface ImageStoreParts extends Omit<ImageStore, 'names'> {
  names(): string[] | Promise<string[]>
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it is about.
const controlCharacters = /[\u0000-\u001f\u007f-\u009f]/

/** Throws `TypeError` for a name that is no string, has control characters or is no Unicode, `RangeError` for a length of 0 or above 200 bytes. */
export function assertImageName(name: string): void {
  if (typeof name !== 'string')
    throw new TypeError(`the name of an image is ${String(name)}; it must be a string`)
  const bytes = new TextEncoder().encode(name)
  if (bytes.byteLength < 1 || bytes.byteLength > maxImageNameBytes) {
    const length = bytes.byteLength
    throw new RangeError(
      `the name of an image has ${length} bytes of UTF-8; it must have 1 to ${maxImageNameBytes}`,
    )
  }
  if (controlCharacters.test(name) || new TextDecoder().decode(bytes) !== name) {
    throw new TypeError(
      `the name of an image is ${JSON.stringify(name)}; it must have no control characters and no half characters`,
    )
  }
}

/** What is to be saved, each list of runs read once: it may be an iterator. */
function checkedContent(content: ImageContent): ImageContent {
  assertKnownOptions(content, ['body', 'keeps', 'since'], 'save')
  const { body, keeps, since } = content
  if (!Array.isArray(body) || !Array.isArray(keeps) || body.length !== keeps.length) {
    throw new TypeError('an image needs a body and as many lists of runs in keeps, both arrays')
  }
  if (since !== undefined && since !== null && typeof since !== 'string') {
    throw new TypeError(`since is ${String(since)}; it must be a revision, null or undefined`)
  }
  let last = -1
  for (const { index, bytes } of body) {
    const follows = typeof since === 'string' ? index > last : index === last + 1
    if (!Number.isSafeInteger(index) || !follows) {
      throw new RangeError(`block ${index} comes after block ${last} of an image`)
    }
    last = index
    if (!isUint8Array(bytes)) throw new TypeError(`block ${index} of an image is not a Uint8Array`)
    if (bytes.byteLength > maxImageBlockBytes) {
      throw new RangeError(`block ${index} of an image has ${bytes.byteLength} bytes, more than 1 MiB`)
    }
  }
  const packed = keeps.map((runs) => {
    const all = [...runs]
    countHandles(all)
    return HandleRuns.of(all)
  })
  return { ...content, keeps: packed }
}
