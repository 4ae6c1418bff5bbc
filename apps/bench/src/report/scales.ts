/** Round numbers from 0 up to the first at or above `most`: about `count` steps of 1, 2 or 5 times a power of ten. */
export function niceTicks(most: number, count = 5): number[] {
  if (!(most > 0)) return [0, 1]
  const rough = most / count
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = power * ([1, 2, 5].find((factor) => rough <= factor * power * 1.0001) ?? 10)
  const steps = Math.ceil(most / step - 1e-9)
  return Array.from({ length: steps + 1 }, (_, index) => Number((index * step).toPrecision(12)))
}

/** Powers of ten that enclose all of `values`. */
export function powerTicks(values: readonly number[]): number[] {
  const powers = values.map((value) => Math.log10(value))
  const first = Math.floor(Math.min(...powers))
  const last = Math.max(first + 1, Math.ceil(Math.max(...powers)))
  return Array.from({ length: last - first + 1 }, (_, index) =>
    Number((10 ** (first + index)).toPrecision(12)),
  )
}
