import type * as Native from '@spillway/native'
import { CryptoCipher } from './crypto-cipher.ts'
import { optionalNative } from './native.ts'
import { OpenSslCipher } from './openssl-cipher.ts'
import type { PageCipher } from './page-cipher.ts'

/** The fastest cipher that works here. `key` is overwritten. Never rejects. */
export async function chooseCipher(key: Uint8Array): Promise<PageCipher> {
  const { native } = await optionalNative.load()
  const cipher = (native && openSslCipher(native, key)) ?? new CryptoCipher(key)
  key.fill(0)
  return cipher
}

/** `undefined` where the program exports no OpenSSL. */
function openSslCipher({ AesGcm }: typeof Native, key: Uint8Array): PageCipher | undefined {
  try {
    return new OpenSslCipher(AesGcm.create(key))
  } catch {
    return undefined
  }
}
