// The layer rules: bin -> commands -> cli, pipelines -> workers/pool -> [thread] -> workers/entry -> methods -> kernels;
// pipelines, workers/entry -> formats, models; models -> kernels/nn; all -> core.
const forbid = (name, from, to, comment) => ({ name, severity: 'error', comment, from: { path: from }, to: { path: to } });

module.exports = {
  forbidden: [
    { name: 'no-circular', severity: 'error', from: {}, to: { circular: true } },
    forbid('core-is-a-leaf', '^core/', '^(bin|commands|cli|pipelines|workers|methods|models|kernels|formats)/', 'core imports nothing of pith'),
    forbid('kernels-are-pure', '^kernels/', '^(commands|cli|pipelines|workers|methods|models|formats)/', 'kernels know no files and no methods'),
    forbid('formats-are-bytes', '^formats/', '^(commands|cli|pipelines|workers|methods|models|kernels)/', 'formats and kernels never see each other'),
    forbid('methods-only-kernels', '^methods/', '^(commands|cli|pipelines|workers|models|formats)/', 'a method is maths on tensors'),
    forbid('methods-no-fs', '^methods/', '^(node:)?fs', 'a method touches no files'),
    {
      name: 'methods-not-each-other',
      severity: 'error',
      comment: 'shared maths moves to kernels',
      from: { path: '^methods/([^/]+)/' },
      to: { path: '^methods/[^/]+/', pathNot: [] },
    },
    forbid('models-only-kernels', '^models/', '^(commands|cli|pipelines|workers|methods|formats)/', 'models are built on kernels/nn'),
    forbid('workers-below-pipelines', '^workers/', '^(commands|cli|pipelines)/', 'a worker runs one task'),
    forbid('pipelines-below-cli', '^pipelines/', '^(commands|cli)/', 'a pipeline knows no terminal'),
    forbid('pipelines-not-into-the-thread', '^pipelines/', '^workers/(entry|tasks)', 'pipelines reach a thread only through the pool'),
    forbid('cli-below-commands', '^cli/', '^commands/', 'commands use cli, not the other way'),
    {
      name: 'oclif-only-at-the-top',
      severity: 'error',
      from: { pathNot: '^(bin|cli|commands)/' },
      to: { path: 'node_modules/@oclif' },
    },
    { name: 'piscina-only-in-workers', severity: 'error', from: { pathNot: '^workers/' }, to: { path: 'node_modules/piscina' } },
    { name: 'not-to-unresolvable', severity: 'error', from: {}, to: { couldNotResolve: true, pathNot: ['^#(tf|vega)', '^@tensorflow/tfjs-node', '^webgpu$'] } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^(dist|kernels/wasm/assembly)' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default'], extensions: ['.ts', '.js', '.mjs', '.cjs'] },
  },
};
