/** Every backend that a machine can have, for the conformance suite. PITH_REQUIRE_BACKENDS names those that must work. */
import { existsSync } from 'node:fs';
import { PithError } from '../../core/errors.js';
import { loadBlas } from '../../kernels/backend/blas.js';
import { setupBackend, type Backend } from '../../kernels/backend/setup.js';

export const BACKENDS = ['wasm', 'wasm+blas', 'webgpu', 'tfjs-node'] as const;
export type BackendName = (typeof BACKENDS)[number];

const required = (process.env['PITH_REQUIRE_BACKENDS'] ?? 'wasm').split(',');

/** The backend, or why this machine has none. A required one throws instead. */
export async function openBackend(name: BackendName): Promise<Backend | string> {
  try {
    return await open(name);
  } catch (error) {
    if (required.includes(name)) throw error;
    if (error instanceof PithError && error.code === 'DEVICE_UNAVAILABLE') return error.message;
    throw error;
  }
}

async function open(name: BackendName): Promise<Backend> {
  switch (name) {
    case 'wasm':
      return setupBackend('cpu', { blasThreads: 1, blas: false });
    case 'wasm+blas':
      if (loadBlas() === undefined) throw new PithError('DEVICE_UNAVAILABLE', { device: 'cpu', message: 'no BLAS library was found' });
      return setupBackend('cpu', { blasThreads: 1 });
    case 'webgpu':
      softwareVulkan();
      return setupBackend('webgpu', { blasThreads: 1 });
    case 'tfjs-node':
      return setupBackend('cuda', { blasThreads: 1 });
  }
}

const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';

/** Chromium's software Vulkan driver, where nothing else was chosen. */
function softwareVulkan(): void {
  if (process.env['VK_ICD_FILENAMES'] === undefined && existsSync(SWIFTSHADER)) process.env['VK_ICD_FILENAMES'] = SWIFTSHADER;
}

/** One describe per backend; a test of a missing one says why and checks that nobody asked for it. */
export function forEachBackend(title: string, suite: (open: () => Backend) => void): void {
  for (const name of BACKENDS) {
    describe(`${title} on ${name}`, () => {
      let backend: Backend | undefined;
      before(async function () {
        this.timeout(60_000);
        const got = await openBackend(name);
        if (typeof got !== 'string') {
          backend = got;
          return;
        }
        process.stdout.write(`    ${name} is not here: ${got}\n`);
        // nothing to run on: the suite of this backend is absent, not passed
        this.test?.parent?.tests.splice(0);
        this.skip();
      });
      suite(() => backend!);
    });
  }
}
