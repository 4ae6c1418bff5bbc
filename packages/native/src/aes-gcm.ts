import { Buffer } from 'node:buffer'
import { createCipheriv } from 'node:crypto'
import { missing } from './errors.ts'
import { libcFor } from './libc.ts'
import { Mapping, mappedAddress, systemPageBytes } from './mapping.ts'

/** The functions of OpenSSL that are used, with addresses as numbers. They return 1, or 0 and less when they failed. */
interface OpenSsl {
  algorithm(): number
  newContext(): number
  freeContext(context: number): void
  setKey(context: number, algorithm: number, engine: number, key: Uint8Array, nonce: number): number
  setDecryptionKey(context: number, algorithm: number, engine: number, key: Uint8Array, nonce: number): number
  begin(context: number, algorithm: number, engine: number, key: number, nonce: number): number
  beginDecryption(context: number, algorithm: number, engine: number, key: number, nonce: number): number
  encrypt(context: number, target: Uint8Array, moved: number, source: Uint8Array, bytes: number): number
  decrypt(context: number, target: Uint8Array, moved: number, source: Uint8Array, bytes: number): number
  endEncryption(context: number, target: number, moved: number): number
  endDecryption(context: number, target: number, moved: number): number
  control(context: number, command: number, bytes: number, argument: number): number
  clearErrors(): void
}

const getTag = 0x10
const setTag = 0x11
const aesKeyBytes = 32
const nonceBytes = 12
const tagBytes = 16
/** OpenSSL counts bytes of a call in an int. */
const maxMessageBytes = 2 ** 30

let openSsl: OpenSsl | undefined
let reasonMissing: string | undefined

/**
 * AES-256-GCM through the OpenSSL of the running program, with contexts that keep the key's schedule: a fraction of what
 * `node:crypto` takes for a page, and no garbage. It works where the program exports OpenSSL, as Node does; elsewhere `create` throws `ENOSYS`.
 */
export class AesGcm implements Disposable {
  readonly #openSsl: OpenSsl
  readonly #memory: Mapping
  readonly #nonce: Uint8Array
  readonly #tag: Uint8Array
  readonly #nonceAddress: number
  readonly #tagAddress: number
  readonly #movedAddress: number
  #encryption = 0
  #decryption = 0

  /** With a key of 32 bytes, which is not kept outside OpenSSL. Throws `ENOSYS` where there is none to call. */
  static create(key: Uint8Array): AesGcm {
    if (!(key instanceof Uint8Array)) throw new TypeError('key must be a Uint8Array')
    if (key.byteLength !== aesKeyBytes) {
      throw new RangeError(`key has ${key.byteLength} bytes; it must have ${aesKeyBytes}`)
    }
    return new AesGcm(theOpenSsl(), key)
  }

  /** Throws unless the functions make of a message what `node:crypto` makes of it. @internal */
  static assertKnownAnswer(library: OpenSsl): void {
    const [key, nonce, message] = [aesKeyBytes, nonceBytes, 100].map((length) =>
      Uint8Array.from({ length }, (_, index) => index * 7),
    )
    using cipher = new AesGcm(library, key)
    const sealed = new Uint8Array(message.byteLength)
    const tag = new Uint8Array(tagBytes)
    cipher.seal(nonce, message, sealed, tag)
    const expected = createCipheriv('aes-256-gcm', key, nonce)
    const bytes = Buffer.concat([expected.update(message), expected.final(), expected.getAuthTag()])
    const isSame = bytes.equals(Buffer.concat([sealed, tag])) && cipher.open(nonce, sealed, sealed, tag)
    if (!isSame) throw new Error('it makes something else of a message than node:crypto')
  }

  private constructor(library: OpenSsl, key: Uint8Array) {
    this.#openSsl = library
    this.#memory = Mapping.anonymous(systemPageBytes())
    const memory = this.#memory.view(0, systemPageBytes())
    this.#nonce = memory.subarray(0, nonceBytes)
    this.#tag = memory.subarray(16, 16 + tagBytes)
    this.#nonceAddress = Number(mappedAddress(memory))
    this.#tagAddress = this.#nonceAddress + 16
    this.#movedAddress = this.#nonceAddress + 32
    this.#encryption = library.newContext()
    this.#decryption = library.newContext()
    const algorithm = library.algorithm()
    const areSet =
      library.setKey(this.#encryption, algorithm, 0, key, this.#nonceAddress) === 1 &&
      library.setDecryptionKey(this.#decryption, algorithm, 0, key, this.#nonceAddress) === 1
    if (areSet) return
    this.close()
    throw failed('cannot set a key')
  }

  /** Encrypts `source` into `target`, as long, which may be the same memory, and puts 16 bytes of tag into `tag`. `nonce` has 12 bytes. */
  seal(nonce: Uint8Array, source: Uint8Array, target: Uint8Array, tag: Uint8Array): void {
    this.#assertOpen()
    assertMessage(nonce, source, target, tag)
    const { begin, encrypt, endEncryption, control } = this.#openSsl
    const context = this.#encryption
    this.#nonce.set(nonce)
    const isDone =
      begin(context, 0, 0, 0, this.#nonceAddress) === 1 &&
      encrypt(context, target, this.#movedAddress, source, source.byteLength) === 1 &&
      endEncryption(context, this.#movedAddress, this.#movedAddress) === 1 &&
      control(context, getTag, tagBytes, this.#tagAddress) === 1
    if (!isDone) throw failed('cannot encrypt')
    tag.set(this.#tag)
  }

  /** Decrypts as `seal` encrypts. False when it does not match its tag: what is in `target` then must not be used. */
  open(nonce: Uint8Array, source: Uint8Array, target: Uint8Array, tag: Uint8Array): boolean {
    this.#assertOpen()
    assertMessage(nonce, source, target, tag)
    const { beginDecryption, decrypt, endDecryption, control, clearErrors } = this.#openSsl
    const context = this.#decryption
    this.#nonce.set(nonce)
    this.#tag.set(tag)
    const isDone =
      beginDecryption(context, 0, 0, 0, this.#nonceAddress) === 1 &&
      decrypt(context, target, this.#movedAddress, source, source.byteLength) === 1 &&
      control(context, setTag, tagBytes, this.#tagAddress) === 1
    if (!isDone) throw failed('cannot decrypt')
    if (endDecryption(context, this.#movedAddress, this.#movedAddress) === 1) return true
    clearErrors()
    return false
  }

  /** Erases the key. Idempotent. */
  close(): void {
    for (const context of [this.#encryption, this.#decryption]) {
      if (context !== 0) this.#openSsl.freeContext(context)
    }
    this.#encryption = 0
    this.#decryption = 0
    this.#memory.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #assertOpen(): void {
    if (this.#encryption === 0)
      throw Object.assign(new Error('EBADF: the cipher is closed'), { code: 'EBADF' })
  }
}

function assertMessage(nonce: Uint8Array, source: Uint8Array, target: Uint8Array, tag: Uint8Array): void {
  if (nonce.byteLength !== nonceBytes || tag.byteLength !== tagBytes) {
    throw new RangeError(
      `nonce and tag have ${nonce.byteLength} and ${tag.byteLength} bytes; they must have ${nonceBytes} and ${tagBytes}`,
    )
  }
  const bytes = source.byteLength
  if (bytes === target.byteLength && bytes > 0 && bytes <= maxMessageBytes) return
  throw new RangeError(
    `source and target have ${bytes} and ${target.byteLength} bytes; they must have as many, 1 to 2^30`,
  )
}

function failed(what: string): Error {
  return Object.assign(new Error(`EIO: OpenSSL ${what}`), { code: 'EIO' })
}

/** Bound once, and only used where it makes of a message what `node:crypto` does. */
function theOpenSsl(): OpenSsl {
  const { bind } = libcFor('EVP_EncryptInit_ex')
  if (reasonMissing !== undefined) throw missing('EVP_EncryptInit_ex', reasonMissing)
  if (openSsl !== undefined) return openSsl
  try {
    const bound = bindOpenSsl(bind)
    AesGcm.assertKnownAnswer(bound)
    openSsl = bound
    return bound
  } catch (failure) {
    reasonMissing = `this program exports no OpenSSL: ${failure instanceof Error ? failure.message : String(failure)}`
    throw missing('EVP_EncryptInit_ex', reasonMissing)
  }
}

function bindOpenSsl(bind: <Call>(definition: string) => Call): OpenSsl {
  const key = '(uintptr_t, uintptr_t, uintptr_t, const uint8_t*, uintptr_t)'
  const nonce = '(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t)'
  const update = '(uintptr_t, uint8_t*, uintptr_t, const uint8_t*, int)'
  const end = '(uintptr_t, uintptr_t, uintptr_t)'
  return {
    algorithm: bind('uintptr_t EVP_aes_256_gcm()'),
    newContext: bind('uintptr_t EVP_CIPHER_CTX_new()'),
    freeContext: bind('void EVP_CIPHER_CTX_free(uintptr_t)'),
    setKey: bind(`int EVP_EncryptInit_ex${key}`),
    setDecryptionKey: bind(`int EVP_DecryptInit_ex${key}`),
    begin: bind(`int EVP_EncryptInit_ex${nonce}`),
    beginDecryption: bind(`int EVP_DecryptInit_ex${nonce}`),
    encrypt: bind(`int EVP_EncryptUpdate${update}`),
    decrypt: bind(`int EVP_DecryptUpdate${update}`),
    endEncryption: bind(`int EVP_EncryptFinal_ex${end}`),
    endDecryption: bind(`int EVP_DecryptFinal_ex${end}`),
    control: bind('int EVP_CIPHER_CTX_ctrl(uintptr_t, int, int, uintptr_t)'),
    clearErrors: bind('void ERR_clear_error()'),
  }
}
