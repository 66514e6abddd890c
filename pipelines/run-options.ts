/** What every verb that runs tasks is given. */
import type { Device } from '../core/device.js';
import type { RunSettings } from '../workers/messages/refs.js';

export interface RunOptions {
  readonly threads: number;
  readonly maxMemoryBytes: number;
  readonly seed: number;
  readonly device: Device | 'auto';
  readonly signal: AbortSignal;
}

/** Settings for the tasks; the device is resolved by the caller, lossless work needs none. */
export function runSettings(o: RunOptions, device: Device): RunSettings {
  return {
    seed: o.seed,
    device,
    // one BLAS thread a worker: the bytes must not depend on --threads
    blasThreads: 1,
    memoryBytes: Math.floor(o.maxMemoryBytes / o.threads),
  };
}

/** Only for runs that compute: a lossless one needs no device. */
export async function resolveRunDevice(wanted: Device | 'auto'): Promise<Device> {
  const { resolveDevice } = await import('../workers/device.js');
  return resolveDevice(wanted);
}
