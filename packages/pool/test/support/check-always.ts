import { checkAlways } from '../../src/residency/chunk-rules.ts'

// Every pool of every test checks the rules of what each step changes.
checkAlways()
