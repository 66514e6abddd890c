// Writes docs/methods.md from the registry, after a build: node scripts/methods-doc.mjs [--check]
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { methodsPage } from '../dist/cli/methods-page.js';

const file = fileURLToPath(new URL('../docs/methods.md', import.meta.url));
const page = await methodsPage();
if (!process.argv.includes('--check')) writeFileSync(file, page);
else if (!existsSync(file) || readFileSync(file, 'utf8') !== page) {
  console.error('docs/methods.md is not what the registry says: node scripts/methods-doc.mjs');
  process.exitCode = 1;
}
