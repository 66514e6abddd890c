/** Where the tensors of a run are computed. */
import type { Device } from '../core/device.js';

/** `auto` and anything but `cpu` need the backends; they load only here. DEVICE_UNAVAILABLE when it is not there. */
export async function resolveDevice(wanted: Device | 'auto'): Promise<Device> {
  if (wanted === 'cpu') return wanted;
  const { resolveDevice: resolve } = await import('../kernels/backend/setup.js');
  return resolve(wanted);
}
