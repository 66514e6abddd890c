#!/usr/bin/env node
import { failed, flush, run } from '../dist/cli/main.js';

await run(process.argv.slice(2), import.meta.url)
  .then(() => flush())
  .catch(failed);
