/** Instantiates one of the built AssemblyScript modules on a memory of the caller's size. */
import { readFileSync } from 'node:fs';
import { PithError } from '../../core/errors.js';

const PAGE_BYTES = 65536;

export interface WasmModule<Exports> {
  readonly exports: Exports;
  readonly memory: WebAssembly.Memory;
}

/** `name`: file in this folder without `.wasm`. Synchronous after reading: the modules are about 10 KB. */
export async function loadWasm<Exports>(name: string, bytes: number): Promise<WasmModule<Exports>> {
  const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / PAGE_BYTES), maximum: 65536 });
  return { exports: await loadWasmOn<Exports>(name, memory), memory };
}

/** The same on a memory that is there already: another module's heap. Such a module keeps no data and allocates nothing. */
export async function loadWasmOn<Exports>(name: string, memory: WebAssembly.Memory): Promise<Exports> {
  const url = new URL(`./${name}.wasm`, import.meta.url);
  const imports = { env: { memory, abort: () => abort(name) } };
  const { instance } = await WebAssembly.instantiate(readFileSync(url), imports);
  return instance.exports as Exports;
}

function abort(name: string): never {
  throw new PithError('INTERNAL', { message: `wasm module ${name} aborted` });
}
