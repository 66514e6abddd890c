/** Picks and sets up the tfjs backend of a thread: wasm (with or without BLAS), WebGPU on Dawn, or TensorFlow's own library. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type * as tfjs from '#tf';
import type { Device } from '../../core/device.js';
import { PithError } from '../../core/errors.js';
import { loadBlas, type Blas } from './blas.js';

export interface Backend {
  readonly device: Device;
  /** tfjs's own name: wasm, webgpu or tensorflow. */
  readonly tfName: string;
  readonly blas: Blas | undefined;
  readonly tf: typeof tfjs;
  /** What computes, for people: the library, the adapter, the package. */
  readonly description: string;
  /** True for an emulated GPU: for tests, never picked by `auto`. */
  readonly software: boolean;
}

export interface BackendOptions {
  readonly blasThreads: number;
  /** false: plain wasm even where a BLAS is found. */
  readonly blas?: boolean;
}

/** A thread has one backend at a time: tfjs's engine is a global of its own. DEVICE_UNAVAILABLE says why not. */
export async function setupBackend(device: Device, options: BackendOptions): Promise<Backend> {
  switch (device) {
    case 'cpu':
      return setupWasm(options);
    case 'webgpu':
      return setupWebgpu();
    case 'cuda':
      return setupTensorflow();
  }
}

/** `auto`: cuda, then webgpu on real hardware, then cpu. Another one is checked: DEVICE_UNAVAILABLE. */
export async function resolveDevice(wanted: Device | 'auto'): Promise<Device> {
  if (wanted === 'cpu') return wanted;
  if (wanted !== 'auto') return (await setupBackend(wanted, { blasThreads: 1 })).device;
  const tensorflow = process.env['PITH_TFJS_NODE'] ?? TFJS_NODE[0];
  if (tensorflow.includes('gpu') && isInstalled(tensorflow) && (await isThere(setupTensorflow))) return 'cuda';
  if (mayHaveGpu() && isInstalled('webgpu') && (await isThere(async () => !(await findAdapter()).software))) return 'webgpu';
  return 'cpu';
}

const TFJS_NODE = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'] as const;

function isInstalled(name: string): boolean {
  try {
    createRequire(import.meta.url).resolve(name);
    return true;
  } catch {
    return false;
  }
}

/** On Linux a GPU has a device node; without one Dawn need not be loaded, which takes time and writes warnings of its own. */
function mayHaveGpu(): boolean {
  if (process.platform !== 'linux') return true;
  return existsSync('/dev/dri') || existsSync('/dev/nvidiactl') || existsSync('/dev/dxg');
}

async function isThere(probe: () => Promise<unknown>): Promise<boolean> {
  try {
    return (await probe()) !== false;
  } catch {
    return false;
  }
}

const VENDOR = fileURLToPath(new URL('../../vendor/', import.meta.url));

async function setupWasm(options: BackendOptions): Promise<Backend> {
  const tf = await import('#tf');
  const wasm = await import('#tf-wasm');
  wasm.setWasmPaths(VENDOR);
  // the pool's threads are the parallelism
  wasm.setThreadsCount(1);
  if (!(await tf.setBackend('wasm'))) throw new PithError('DEVICE_UNAVAILABLE', { device: 'cpu', message: 'the wasm backend did not start' });
  await tf.ready();
  const blas = options.blas === false ? undefined : loadBlas();
  const kernels = await import('./blas-kernels.js');
  kernels.usePlain();
  if (blas !== undefined) {
    blas.setThreads(options.blasThreads);
    kernels.useBlas(blas);
  }
  await (await import('../nn/fused.js')).useFused(blas);
  return {
    device: 'cpu',
    tfName: 'wasm',
    blas,
    tf,
    description: blas === undefined ? 'wasm SIMD' : `wasm SIMD, products on ${blas.name} (${blas.path})`,
    software: false,
  };
}

interface Adapter {
  readonly description: string;
  readonly software: boolean;
}

/** Puts Dawn's `navigator.gpu` in place. */
async function findAdapter(): Promise<Adapter> {
  const unavailable = (message: string): PithError => new PithError('DEVICE_UNAVAILABLE', { device: 'webgpu', message });
  let dawn: { create(options: string[]): unknown; globals: object };
  try {
    dawn = await import('webgpu');
  } catch {
    throw unavailable('the optional package "webgpu" is not installed: npm install webgpu');
  }
  const scope = globalThis as unknown as { navigator?: { gpu?: { requestAdapter(): Promise<GpuAdapter | null> } } };
  Object.assign(globalThis, dawn.globals);
  if (scope.navigator === undefined) Object.defineProperty(globalThis, 'navigator', { value: {}, configurable: true, writable: true });
  if (scope.navigator?.gpu === undefined) Object.defineProperty(scope.navigator!, 'gpu', { value: dawn.create([]), configurable: true });
  const adapter = await scope.navigator!.gpu!.requestAdapter();
  if (adapter === null) throw unavailable('no Vulkan, Metal or D3D12 adapter was found (a software one: VK_ICD_FILENAMES)');
  const { vendor = '', architecture = '', device = '', description = '' } = adapter.info ?? {};
  const text = [vendor, architecture, device, description].filter((t) => t !== '').join(' ');
  return { description: text, software: adapter.isFallbackAdapter === true || /swiftshader|llvmpipe|lavapipe|software/i.test(text) };
}

interface GpuAdapter {
  readonly isFallbackAdapter?: boolean;
  readonly info?: { readonly vendor?: string; readonly architecture?: string; readonly device?: string; readonly description?: string };
}

async function setupWebgpu(): Promise<Backend> {
  const adapter = await findAdapter();
  const tf = await import('#tf');
  await import('#tf-webgpu');
  if (!(await tf.setBackend('webgpu')))
    throw new PithError('DEVICE_UNAVAILABLE', { device: 'webgpu', message: `the adapter ${adapter.description} gave no device` });
  await tf.ready();
  return { device: 'webgpu', tfName: 'webgpu', blas: undefined, tf, ...adapter };
}

/** tfjs-node-gpu or tfjs-node: they share one binding; their copy of tfjs shares the engine of ours through a global. */
async function setupTensorflow(): Promise<Backend> {
  const tf = await import('#tf');
  // its library writes to stderr what is no warning of ours
  process.env['TF_CPP_MIN_LOG_LEVEL'] ??= '2';
  const require = createRequire(import.meta.url);
  const named = process.env['PITH_TFJS_NODE'];
  const reasons: string[] = [];
  for (const name of named === undefined ? TFJS_NODE : [named]) {
    try {
      require(name);
      if (!(await tf.setBackend('tensorflow'))) throw new Error('its backend did not start');
      await tf.ready();
      return {
        device: 'cuda',
        tfName: 'tensorflow',
        blas: undefined,
        tf,
        description: name.includes('gpu') ? 'tfjs-node-gpu' : 'tfjs-node (CPU)',
        software: false,
      };
    } catch (error) {
      reasons.push(`${name}: ${error instanceof Error ? error.message.split('\n')[0]! : String(error)}`);
    }
  }
  throw new PithError('DEVICE_UNAVAILABLE', { device: 'cuda', message: reasons.join('; ') });
}
