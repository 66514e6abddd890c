/** The products of the factorizations on the device of a run: none for the CPU, whose BLAS works on the matrices in place. */
import type { Device } from '../../core/device.js';
import type { PanelProducts } from './randomized-svd.js';

/** Loads tfjs for anything but `cpu`. DEVICE_UNAVAILABLE when the device is not there. */
export async function deviceProducts(device: Device, blasThreads: number): Promise<(PanelProducts & Disposable) | undefined> {
  if (device === 'cpu') return undefined;
  const [{ setupBackend }, { tfProducts }] = await Promise.all([import('../backend/setup.js'), import('./tf-products.js')]);
  return tfProducts(await setupBackend(device, { blasThreads }));
}
