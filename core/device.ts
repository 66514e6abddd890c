/** Where tfjs kernels run. `auto` is resolved before a task is made: cuda, then webgpu with a real adapter, then cpu. */
export type Device = 'cpu' | 'webgpu' | 'cuda';
export const DEVICES: readonly (Device | 'auto')[] = ['auto', 'cpu', 'webgpu', 'cuda'];
