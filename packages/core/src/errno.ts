/**
 * Names of errors of the system that Spillway passes on and never decides on: those of `os.constants.errno`, and those
 * of Linux that Node does not list.
 */
export const systemErrorCodes = [
  'E2BIG',
  'EADDRINUSE',
  'EADDRNOTAVAIL',
  'EAFNOSUPPORT',
  'EALREADY',
  'ECANCELED',
  'ECHILD',
  'ECONNABORTED',
  'ECONNREFUSED',
  'ECONNRESET',
  'EDEADLK',
  'EDESTADDRREQ',
  'EDOM',
  'EHOSTDOWN',
  'EHOSTUNREACH',
  'EHWPOISON',
  'EIDRM',
  'EILSEQ',
  'EINPROGRESS',
  'EISCONN',
  'EISDIR',
  'EKEYEXPIRED',
  'EKEYREJECTED',
  'EKEYREVOKED',
  'ELOOP',
  'EMEDIUMTYPE',
  'EMLINK',
  'EMSGSIZE',
  'EMULTIHOP',
  'ENAMETOOLONG',
  'ENETDOWN',
  'ENETRESET',
  'ENETUNREACH',
  'ENFILE',
  'ENOBUFS',
  'ENODATA',
  'ENODEV',
  'ENOEXEC',
  'ENOKEY',
  'ENOLCK',
  'ENOLINK',
  'ENOMEDIUM',
  'ENOMSG',
  'ENOPROTOOPT',
  'ENOSR',
  'ENOSTR',
  'ENOTBLK',
  'ENOTCONN',
  'ENOTDIR',
  'ENOTEMPTY',
  'ENOTRECOVERABLE',
  'ENOTSOCK',
  'ENOTSUP',
  'ENOTTY',
  'ENXIO',
  'EOPNOTSUPP',
  'EOVERFLOW',
  'EOWNERDEAD',
  'EPIPE',
  'EPROTO',
  'EPROTONOSUPPORT',
  'EPROTOTYPE',
  'ERANGE',
  'EREMOTEIO',
  'ESHUTDOWN',
  'ESPIPE',
  'ESRCH',
  'ETIME',
  'ETXTBSY',
  'EUCLEAN',
  'EUSERS',
  'EWOULDBLOCK',
  'EXDEV',
] as const

export type SystemErrorCode = (typeof systemErrorCodes)[number]

/** Numbers of Linux, the same on all processors that Node runs on but MIPS, for names that Node does not list. */
const linuxNumbers: Readonly<Record<number, SystemErrorCode>> = {
  15: 'ENOTBLK',
  87: 'EUSERS',
  108: 'ESHUTDOWN',
  112: 'EHOSTDOWN',
  117: 'EUCLEAN',
  121: 'EREMOTEIO',
  123: 'ENOMEDIUM',
  124: 'EMEDIUMTYPE',
  126: 'ENOKEY',
  127: 'EKEYEXPIRED',
  128: 'EKEYREVOKED',
  129: 'EKEYREJECTED',
  130: 'EOWNERDEAD',
  131: 'ENOTRECOVERABLE',
  133: 'EHWPOISON',
}

interface Host {
  readonly platform?: string
  getBuiltinModule?(name: string): { constants?: { errno?: Readonly<Record<string, number>> } } | undefined
}

let namesByNumber: Map<number, string> | undefined

/**
 * The name of an errno, positive or negative, on this platform; `undefined` when it has none. Node and libuv lack names for some
 * (`EDQUOT`, `ESTALE`, `EBADMSG`, …) and call them "Unknown system error -122".
 */
export function errnoName(errno: number): string | undefined {
  namesByNumber ??= readNames()
  return namesByNumber.get(Math.abs(errno))
}

function readNames(): Map<number, string> {
  const host = (globalThis as { process?: Host }).process
  const names = new Map<number, string>()
  if (host?.platform === 'linux') {
    for (const [number, name] of Object.entries(linuxNumbers)) names.set(Number(number), name)
  }
  for (const [name, number] of Object.entries(host?.getBuiltinModule?.('node:os')?.constants?.errno ?? {})) {
    // Two names of one number: the one that comes first is the one that is used (EAGAIN, ENOTSUP).
    if (!names.has(number)) names.set(number, name)
  }
  return names
}
