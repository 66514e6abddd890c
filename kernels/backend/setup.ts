/** Picks the device of a run. */
import type { Device } from '../../core/device.js';
import { PithError } from '../../core/errors.js';

export async function resolveDevice(wanted: Device | 'auto'): Promise<Device> {
  if (wanted === 'auto' || wanted === 'cpu') return 'cpu';
  throw new PithError('DEVICE_UNAVAILABLE', { device: wanted, message: 'no backend for it was found' });
}
