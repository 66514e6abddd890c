/** The tensors that a run trains, on the host: values, gradients, optimizer states; and the file that a stopped run goes on from. */
import { PithError } from '../../core/errors.js';
import { decodeF32 } from '../../core/float.js';
import type { TensorInfo } from '../../core/tensor.js';
import * as io from '../../formats/io.js';
import { prepareFiles } from '../../formats/safetensors/prepared.js';
import { SafetensorsFile } from '../../formats/safetensors/file.js';
import { clipFactor, type Optimizer, type OptimizerState } from '../../kernels/optim/optimizers.js';
import type { AdaptedLayer, HostTree, LayerPlan, ParamSpec, TrainingRule } from '../../methods/adapter-kind.js';
import type { Written } from '../messages/refs.js';
import { PlaceWriter, writtenFile } from '../written.js';

export interface TrainedLayer {
  readonly layer: AdaptedLayer;
  readonly plan: LayerPlan;
  readonly transposed: boolean;
  readonly values: HostTree;
  readonly grads: HostTree;
  readonly frozen: HostTree;
}

interface Slot {
  readonly name: string;
  readonly spec: ParamSpec;
  readonly value: Float32Array;
  readonly grad: Float32Array;
  readonly state: OptimizerState;
}

export class Trainables {
  readonly #slots: readonly Slot[];

  constructor(
    readonly layers: readonly TrainedLayer[],
    private readonly optimizer: Optimizer,
    private readonly rule: TrainingRule | undefined,
  ) {
    this.#slots = layers.flatMap(({ layer, plan, values, grads }) =>
      Object.entries(plan.trainable).map(([param, spec]) => ({
        name: `${layer.module}.${param}`,
        spec,
        value: values[param]!,
        grad: grads[param]!,
        state: optimizer.init(spec.shape),
      })),
    );
  }

  get count(): number {
    return this.#slots.reduce((sum, s) => sum + s.value.length, 0);
  }

  zeroGradients(): void {
    for (const { grad } of this.#slots) grad.fill(0);
  }

  /** One step of the optimizer on the gradients that were added up; their norm before clipping. A norm that is not finite changes nothing. */
  step(step: number, rate: number, clip: number): number {
    this.rule?.onGrad?.(step);
    const { norm, factor } = clipFactor(
      this.#slots.map((s) => s.grad),
      clip,
    );
    if (!Number.isFinite(norm)) return norm;
    for (const { spec, value, grad, state } of this.#slots) {
      if (factor < 1) for (let i = 0; i < grad.length; i++) grad[i] = grad[i]! * factor;
      this.optimizer.update(value, grad, state, { step, rate: rate * (spec.rate ?? 1), decay: spec.decay ?? true });
    }
    this.rule?.onStep?.(step);
    return norm;
  }

  /** Everything that changes while training. */
  #all(): Map<string, Float32Array> {
    const all = new Map<string, Float32Array>();
    for (const { name, value, state } of this.#slots) {
      all.set(`value.${name}`, value);
      for (const [key, array] of Object.entries(state)) all.set(`${key}.${name}`, array);
    }
    for (const { layer, frozen } of this.layers) for (const [key, array] of Object.entries(frozen)) all.set(`frozen.${layer.module}.${key}`, array);
    for (const [key, array] of Object.entries(this.rule?.state ?? {})) all.set(`rule.${key}`, array);
    return all;
  }

  /** `file` is replaced by a whole one. */
  save(file: string): Written {
    const temp = `${file}.new`;
    io.remove(temp);
    const all = this.#all();
    const infos = [...all].map(([name, v]): TensorInfo => ({ name, dtype: 'F32', shape: [v.length] }));
    const prepared = prepareFiles(temp, infos, { single: true });
    for (const [name, values] of all) {
      using out = new PlaceWriter(prepared.places.get(name)!);
      out.write(values);
    }
    prepared.finish();
    io.rename(temp, file);
    return writtenFile(file);
  }

  /** The state that `save` wrote. */
  load(path: string): void {
    const file = SafetensorsFile.open(path);
    try {
      for (const [name, values] of this.#all()) {
        const { bytes } = file.read(name);
        if (bytes.length !== values.byteLength) {
          throw new PithError('SHAPE_MISMATCH', { file: path, tensor: name, expected: `${values.byteLength} bytes`, got: `${bytes.length} bytes` });
        }
        decodeF32('F32', bytes, values);
      }
    } finally {
      file.close();
    }
  }
}
