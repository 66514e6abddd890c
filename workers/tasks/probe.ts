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
    return { found: false, software: false, description: '', message: triedInWords() };
  }
  const backend = await setupBackend(task.device, { blasThreads: task.threads, blas: task.blas });
  const { description, software } = backend;
  const speed = await measureBackend(backend, software ? SOFTWARE_SIDE : SIDE);
  if (!(speed.maxError < TOLERANCE))
    throw new PithError('DEVICE_UNAVAILABLE', { device: task.device, message: `a product came out wrong by ${speed.maxError}` });
  return { found: true, software, description, ...speed };
}

/** Libraries that are simply absent in one breath, real faults each with its reason. */
function triedInWords(): string {
  const { tried } = searchBlas();
  const absent = tried.filter((t) => t.message.includes('cannot open shared object file')).map((t) => t.path);
  const others = tried.filter((t) => !absent.includes(t.path)).map((t) => `${t.path}: ${t.message}`);
  return [...others, ...(absent.length === 0 ? [] : [`not found: ${absent.join(', ')}`])].join('; ');
}
