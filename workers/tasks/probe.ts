/** Sets up one backend in this thread and measures it. */
import { PithError } from '../../core/errors.js';
import { searchBlas } from '../../kernels/backend/blas.js';
import { measureBackend } from '../../kernels/backend/probe.js';
import { setupBackend } from '../../kernels/backend/setup.js';
import type { ProbeResult, ProbeTask } from '../messages.js';

/** Sides of the timed product: an emulated GPU is a thousand times slower. */
const SIDE = 2048;
const SOFTWARE_SIDE = 128;
/** An f32 product of side 96 may be off by this much. */
const TOLERANCE = 1e-3;

export async function probe(task: ProbeTask): Promise<ProbeResult> {
  if (task.device === 'cpu' && task.blas && searchBlas().blas === undefined) {
    const tried = searchBlas().tried.map((t) => `${t.path}: ${t.message}`);
    return { found: false, software: false, description: '', message: tried.join('; ') };
  }
  const backend = await setupBackend(task.device, { blasThreads: task.threads, blas: task.blas });
  const { description, software } = backend;
  const speed = await measureBackend(backend, software ? SOFTWARE_SIDE : SIDE);
  if (!(speed.maxError < TOLERANCE))
    throw new PithError('DEVICE_UNAVAILABLE', { device: task.device, message: `a product came out wrong by ${speed.maxError}` });
  return { found: true, software, description, ...speed };
}
