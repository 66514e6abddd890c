/** What bin/run.js runs: oclif and the end of a run, in one bundle. */
export { flush, run } from '@oclif/core';
export { failed } from './errors.js';
