// Registers the wasm backend in the shared engine.
export { setWasmPaths, setThreadsCount, BackendWasm } from '@tensorflow/tfjs-backend-wasm';
