/** The list with one more item. What begins as `[item]` has room for one, what is pushed to for seventeen. */
export function added<Item>(list: Item[], item: Item): Item[] {
  if (list.length === 0) return [item]
  list.push(item)
  return list
}
