// Registers the webgpu backend in the shared engine.
export { WebGPUBackend } from '@tensorflow/tfjs-backend-webgpu';
