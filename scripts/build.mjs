// Builds dist/: AssemblyScript kernels, the tfjs bundles, TypeScript. `--fast` transpiles without type checks.
import { build } from 'esbuild';
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
process.chdir(root);
const fast = process.argv.includes('--fast');
const require = createRequire(import.meta.url);
const newest = (paths) => Math.max(0, ...paths.map((p) => statSync(p).mtimeMs));
const walk = (dir) => readdirSync(dir, { withFileTypes: true }).flatMap((e) => (e.isDirectory() ? walk(join(dir, e.name)) : [join(dir, e.name)]));

/** kernels/wasm/assembly/<name>.ts -> dist/kernels/wasm/<name>.wasm; files starting with `_` are shared parts. */
function buildWasm() {
  const dir = 'kernels/wasm/assembly';
  if (!existsSync(dir)) return;
  const sources = readdirSync(dir).filter((f) => f.endsWith('.ts'));
  const stamp = newest(sources.map((f) => join(dir, f)));
  mkdirSync('dist/kernels/wasm', { recursive: true });
  for (const file of sources.filter((f) => !f.startsWith('_'))) {
    const out = join('dist/kernels/wasm', `${basename(file, '.ts')}.wasm`);
    if (existsSync(out) && statSync(out).mtimeMs >= stamp) continue;
    const flags = ['-O3', '--noAssert', '--runtime', 'stub', '--importMemory', '--enable', 'simd', '--converge'];
    execFileSync(process.execPath, [join(root, 'node_modules/assemblyscript/bin/asc.js'), join(dir, file), '-o', out, ...flags], { stdio: 'inherit' });
  }
}

const browserBuild = (name) => join(root, 'node_modules', name, 'build', `${name}.browser.js`);

const COMMONJS = [
  "import { createRequire as requireFrom } from 'node:module';",
  "import { dirname as folderOf } from 'node:path';",
  "import { fileURLToPath as pathOf } from 'node:url';",
  'const require = requireFrom(import.meta.url), __filename = pathOf(import.meta.url), __dirname = folderOf(__filename);',
].join('\n');

/**
 * tfjs weighs 300 MB installed, Vega 20; the bundles hold what pith uses of them, tfjs in one shared engine, Vega without the
 * parts that look for a canvas or for files.
 */
async function buildVendor() {
  const entries = ['kernels/backend', 'cli/report'].flatMap((d) => readdirSync(`${d}/vendor`).map((f) => `${d}/vendor/${f}`));
  const stamp = Math.max(newest(entries), statSync('package.json').mtimeMs);
  const marker = 'dist/vendor/.stamp';
  if (existsSync(marker) && Number(readFileSync(marker, 'utf8')) >= stamp) return;
  rmSync('dist/vendor', { recursive: true, force: true });
  const { metafile } = await build({
    metafile: true,
    entryPoints: entries.map((f) => ({ in: f, out: basename(f, '.mjs') })),
    outdir: 'dist/vendor',
    alias: { 'vega-canvas': browserBuild('vega-canvas'), 'vega-loader': browserBuild('vega-loader') },
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    // ES modules: names can be exported, and the parts share one tfjs-core
    mainFields: ['module', 'main'],
    target: 'node20',
    minify: true,
    legalComments: 'none',
    logLevel: 'error',
    // the wasm loader asks for fs by require
    banner: { js: COMMONJS },
  });
  const wasmDir = join(dirname(require.resolve('@tensorflow/tfjs-backend-wasm/package.json')), 'dist');
  for (const f of readdirSync(wasmDir).filter((f) => f.endsWith('.wasm'))) cpSync(join(wasmDir, f), join('dist/vendor', f));
  writeFileSync('dist/vendor/LICENSES.txt', licences(Object.keys(metafile.inputs)));
  writeFileSync(marker, String(stamp));
}

/** The licence texts of the packages that the bundled files come from. */
function licences(files) {
  const folders = new Set(files.flatMap((f) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(f)?.[0] ?? []));
  const texts = [...folders].sort().map((folder) => {
    const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    const file = readdirSync(folder).find((f) => /^licen[cs]e(\.|$)/i.test(f));
    return `${name} ${version} (${license})\n\n${file === undefined ? 'The package holds no licence text.\n' : readFileSync(join(folder, file), 'utf8')}`;
  });
  return texts.join(`\n${'-'.repeat(80)}\n`);
}

async function buildTypeScript() {
  if (!fast) {
    execFileSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', '.'], { stdio: 'inherit' });
    return;
  }
  const dirs = ['cli', 'commands', 'core', 'formats', 'kernels', 'methods', 'models', 'pipelines', 'workers', 'test', 'bench'].filter((d) => existsSync(d));
  const entryPoints = dirs.flatMap(walk).filter((f) => f.endsWith('.ts') && !f.endsWith('.d.ts') && !f.startsWith('kernels/wasm/assembly'));
  await build({ entryPoints, outdir: 'dist', outbase: '.', format: 'esm', platform: 'node', target: 'node20', sourcemap: true, logLevel: 'error' });
}

/** Needed by oclif for plugins in TypeScript, which pith has none of. */
const NEVER_LOADED = ['typescript', 'ts-node', 'tsx'];

/** A module's own place in dist/, whatever chunk it ends in: the parts beside it are found by it. */
const ownPlace = {
  name: 'own-place',
  setup(b) {
    b.onLoad({ filter: /\.ts$/ }, ({ path }) => {
      const text = readFileSync(path, 'utf8');
      if (!text.includes('import.meta.url')) return undefined;
      const place = relative(root, path).split('\\').join('/').replace(/\.ts$/, '.js');
      const url = `(import.meta.url.slice(0, import.meta.url.lastIndexOf('/dist/') + 6) + '${place}')`;
      return { contents: text.replaceAll('import.meta.url', url), loader: 'ts' };
    });
  },
};

/**
 * The files that a process or thread starts with, each bundled in its place with what it imports, shared parts in dist/chunks:
 * a start loads 10 files instead of 300 (oclif, zod), 0.1 s less a command. The other modules stay as they are, for tests.
 */
async function bundleEntries() {
  const { metafile } = await build({
    entryPoints: ['cli/main.ts', 'workers/entry.ts', ...walk('commands').filter((f) => f.endsWith('.ts'))],
    outdir: 'dist',
    outbase: '.',
    chunkNames: 'chunks/[name]-[hash]',
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    minifySyntax: true,
    minifyWhitespace: true,
    sourcemap: true,
    legalComments: 'none',
    logLevel: 'error',
    metafile: true,
    external: ['piscina', 'koffi', 'webgpu', '#*', ...NEVER_LOADED],
    banner: { js: COMMONJS },
    plugins: [ownPlace],
  });
  for (const f of walk('dist/chunks').filter((f) => metafile.outputs[f.split('\\').join('/')] === undefined)) rmSync(f);
}

buildWasm();
await buildVendor();
await buildTypeScript();
await bundleEntries();
rmSync('oclif.manifest.json', { force: true });
await (await import('./manifest.mjs')).writeManifest();
