export { setWasmPaths, setThreadsCount, BackendWasm } from '@tensorflow/tfjs-backend-wasm';
