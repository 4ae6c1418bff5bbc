import { timingSafeEqual } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Frames } from './frames.ts'

/** Where the page lies: beside `src` and `dist`. */
const folder = new URL('../page/', import.meta.url)

const files: ReadonlyMap<string, { readonly name: string; readonly type: string }> = new Map(
  ['index.html', 'page.css', 'main.js', 'charts.js', 'figures.js', 'heat-map.js', 'pool-view.js'].map(
    (name) => [name === 'index.html' ? '' : name, { name, type: typeOf(name) }],
  ),
)

/** The page asks its own server and nobody else, and nobody may frame it. */
const headers = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
} as const

interface Access {
  readonly frames: Frames
  readonly token: string
  /** What the header Host may say: a page of another name that was made to resolve to this machine says its own. */
  readonly hosts: ReadonlySet<string>
}

/** Answers the requests of the page. Whoever does not know the token is told nothing. */
export function answererOf(access: Access): (request: IncomingMessage, response: ServerResponse) => void {
  return (request, response) => {
    answer(access, request, response).catch(() => {
      // A file of the package is missing, or a pool could not be read: the page tries again.
      if (response.headersSent) response.destroy()
      else response.writeHead(500, headers).end()
    })
  }
}

async function answer(
  { frames, token, hosts }: Access,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const [path = '', query = ''] = (request.url ?? '').split('?', 2)
  const [, given = '', name, ...rest] = path.split('/')
  if (!hosts.has(request.headers.host ?? '') || !isSame(given, token)) {
    response.writeHead(403).end()
    return
  }
  if (request.method !== 'GET') {
    response.writeHead(405, { ...headers, allow: 'GET' }).end()
    return
  }
  if (name === 'frame') {
    const body = frames.frame(Number(new URLSearchParams(query).get('layout') ?? 0))
    response.writeHead(200, { ...headers, 'content-type': 'application/octet-stream' }).end(body)
    return
  }
  const file = rest.length > 0 ? undefined : files.get(name ?? '-')
  if (file === undefined) {
    response.writeHead(404, headers).end()
    return
  }
  const content = await readFile(new URL(file.name, folder))
  response.writeHead(200, { ...headers, 'content-type': file.type }).end(content)
}

/** Compares in a time that does not tell how much was right. */
function isSame(given: string, token: string): boolean {
  const [one, other] = [Buffer.from(given), Buffer.from(token)]
  return one.length === other.length && timingSafeEqual(one, other)
}

function typeOf(name: string): string {
  if (name.endsWith('.html')) return 'text/html; charset=utf-8'
  return name.endsWith('.css') ? 'text/css; charset=utf-8' : 'text/javascript; charset=utf-8'
}
