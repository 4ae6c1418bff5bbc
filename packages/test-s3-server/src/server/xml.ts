import type { S3Error } from './errors.ts'

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  '\r': '&#13;',
}

export function escapeXml(text: string): string {
  return text.replace(/[&<>"\r]/g, (character) => entities[character]!)
}

export function decodeXml(text: string): string {
  return text.replace(/&(#x[0-9a-f]+|#[0-9]+|amp|lt|gt|quot|apos);/gi, (_, name: string) => {
    if (name.startsWith('#x') || name.startsWith('#X'))
      return String.fromCodePoint(Number.parseInt(name.slice(2), 16))
    if (name.startsWith('#')) return String.fromCodePoint(Number.parseInt(name.slice(1), 10))
    return { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }[name.toLowerCase()]!
  })
}

/** The decoded text of each `<name>` element, in order. */
export function textsOf(xml: string, name: string): string[] {
  const texts: string[] = []
  for (const match of xml.matchAll(new RegExp(`<${name}(?:\\s[^>]*)?>([\\s\\S]*?)</${name}>`, 'g')))
    texts.push(decodeXml(match[1]!))
  return texts
}

export function element(name: string, text: string | number | boolean): string {
  return `<${name}>${escapeXml(String(text))}</${name}>`
}

export function document(root: string, content: string): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n<${root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${content}</${root}>`
}

export function errorDocument(
  error: S3Error,
  requestId: string,
  resource: string,
  withMessage: boolean,
): string {
  let content = element('Code', error.code)
  if (withMessage) content += element('Message', error.message)
  for (const [name, text] of Object.entries(error.details)) content += element(name, text)
  content += element('Resource', resource) + element('RequestId', requestId)
  return `<?xml version="1.0" encoding="UTF-8"?>\n<Error>${content}</Error>`
}
