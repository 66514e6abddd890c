/** `pith doctor`: what this machine computes with, how fast, and what is missing. */
import { arch, availableParallelism, cpus, freemem, platform, totalmem } from 'node:os';
import type { Device } from '../core/device.js';
import { PithError } from '../core/errors.js';
import { pithVersion } from '../core/version.js';
import { WorkerPool } from '../workers/pool.js';
import type { ProbeResult, ProbeTask } from '../workers/messages.js';

export interface DoctorDevice extends ProbeResult {
  readonly name: string;
  readonly device: Device;
}

export interface DoctorReport {
  readonly node: string;
  readonly platform: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly freeBytes: number;
  readonly auto: string;
  readonly devices: readonly DoctorDevice[];
  /** One line each: what is missing and how to get it. */
  readonly advice: readonly string[];
}

const PROBES: readonly { readonly name: string; readonly device: Device; readonly blas: boolean }[] = [
  { name: 'cpu: wasm', device: 'cpu', blas: false },
  { name: 'cpu: wasm + BLAS', device: 'cpu', blas: true },
  { name: 'webgpu', device: 'webgpu', blas: false },
  { name: 'cuda', device: 'cuda', blas: false },
];

/** One thread for each probe: a library that fails takes only its own thread along, and tfjs keeps one backend a thread. */
export async function doctor(): Promise<DoctorReport> {
  const devices: DoctorDevice[] = [];
  for (const { name, device, blas } of PROBES) {
    const task: ProbeTask = { type: 'probe', device, blas, threads: availableParallelism() };
    devices.push({ name, device, ...(await probe(task)) });
  }
  const real = devices.filter((d) => d.found && !d.software);
  const auto = (['cuda', 'webgpu', 'cpu'] as const).find((d) => real.some((r) => r.device === d && (d !== 'cuda' || r.description.includes('gpu')))) ?? 'cpu';
  return {
    node: `${process.version}, pith ${pithVersion()}`,
    platform: `${platform()} ${arch()}`,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    freeBytes: freemem(),
    auto,
    devices,
    advice: advice(devices),
  };
}

async function probe(task: ProbeTask): Promise<ProbeResult> {
  await using pool = new WorkerPool({ threads: 1 });
  try {
    return await pool.run(task);
  } catch (error) {
    return { found: false, software: false, description: '', message: error instanceof PithError ? error.message : String(error) };
  }
}

function advice(devices: readonly DoctorDevice[]): string[] {
  const found = (name: string): boolean => devices.some((d) => d.name === name && d.found);
  const lines: string[] = [];
  if (!found('cpu: wasm + BLAS')) {
    lines.push(
      'BLAS: products run 5 to 10 times faster with one. Debian: apt install libopenblas0; Fedora: dnf install openblas; macOS has Accelerate; or name a library with PITH_BLAS.',
    );
  }
  if (!devices.some((d) => d.device === 'webgpu' && d.found && !d.software)) lines.push('webgpu: npm install webgpu, and a Vulkan, Metal or D3D12 driver.');
  if (!found('cuda')) lines.push('cuda: npm install @tensorflow/tfjs-node-gpu, with CUDA 11.8 and cuDNN 8.6; or name an installed one with PITH_TFJS_NODE.');
  return lines;
}
