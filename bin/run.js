#!/usr/bin/env node
import { execute } from '@oclif/core';
import { failed } from '../dist/cli/errors.js';

await execute({ dir: import.meta.url }).catch(failed);
