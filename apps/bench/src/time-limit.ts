/** What the promise gives, or a rejection with `message` after so many milliseconds; whatever it does later is ignored. */
export async function within<Value>(
  limitMs: number,
  promise: Promise<Value>,
  message: string,
): Promise<Value> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${message} in ${limitMs / 1000} s`)), limitMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
