#!/usr/bin/env node
import { flush, run } from '@oclif/core';
import { failed } from '../dist/cli/errors.js';

await run(process.argv.slice(2), import.meta.url)
  .then(() => flush())
  .catch(failed);
