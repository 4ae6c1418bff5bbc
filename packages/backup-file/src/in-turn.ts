const turns = new Map<string, Promise<void>>()

/**
 * Does one thing of a name at a time, in this process: two opens of one file do not sweep what a dead owner left under each other, and two
 * reservations do not take the space that the other has found.
 */
export async function inTurn<Result>(name: string, work: () => Promise<Result>): Promise<Result> {
  const turn = (turns.get(name) ?? Promise.resolve()).then(work)
  const settled = turn.then(
    () => {},
    () => {},
  )
  turns.set(name, settled)
  try {
    return await turn
  } finally {
    if (turns.get(name) === settled) turns.delete(name)
  }
}
