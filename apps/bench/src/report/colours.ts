/** How many colours the page has for backends and peers. */
export const subjectColourCount = 10

/**
 * The colour of each backend and peer, the same in all charts of a page: that is all that colours of charts mean. What is measured without
 * one (ceilings, bare calls) is grey, and limits are drawn in the colour of text.
 */
export class Colours {
  readonly #subjects: readonly string[]

  constructor(subjects: Iterable<string>) {
    this.#subjects = [...new Set(subjects)]
  }

  of(subject: string): string {
    const index = this.#subjects.indexOf(subject)
    return index === -1 ? noSubject : `var(--c${index % subjectColourCount})`
  }
}

export const noSubject = 'var(--grey)'
