/** Objects that are in use and not closed, without holding any of them. */
export class LiveObjects<Member extends object> {
  readonly #references = new Set<WeakRef<Member>>()

  /** Returns what ends it. */
  add(member: Member): () => void {
    this.#forgetCollected()
    const reference = new WeakRef(member)
    this.#references.add(reference)
    return () => {
      this.#references.delete(reference)
    }
  }

  /** All of them, the oldest first. */
  list(): Member[] {
    this.#forgetCollected()
    return [...this.#references].flatMap((reference) => reference.deref() ?? [])
  }

  #forgetCollected(): void {
    for (const reference of this.#references) {
      if (reference.deref() === undefined) this.#references.delete(reference)
    }
  }
}
