/** The method instances of a thread, or of one reader: each has its own coder, so that one can decode while another encodes. */
import { Rng } from '../core/rng.js';
import type { Ctx } from '../methods/define.js';
import { loadMethod } from '../methods/index.js';
import type { DeltaCodec } from '../methods/kinds.js';
import type { MethodRef, RunSettings } from './messages/refs.js';

export interface TaskControl {
  readonly report: (bytes: number) => void;
  readonly checkpointCancel: () => void;
}

export const NO_CONTROL: TaskControl = { report: () => undefined, checkpointCancel: () => undefined };

/** For work that computes nothing on a device: decoding. */
export const DECODE_SETTINGS: RunSettings = { seed: 0, device: 'cpu', blasThreads: 1, memoryBytes: 64 << 20 };

export class Codecs {
  readonly #codecs = new Map<string, Promise<DeltaCodec>>();

  codec(ref: MethodRef): Promise<DeltaCodec> {
    const key = JSON.stringify([ref.name, ref.params]);
    let codec = this.#codecs.get(key);
    if (codec === undefined) {
      codec = loadMethod('delta', ref.name).then((m) => m.create(ref.params));
      this.#codecs.set(key, codec);
    }
    return codec;
  }

  /** The stream is named by the seed and the tensor, never by the thread. */
  ctx(settings: RunSettings, tensor: string, control: TaskControl): Ctx {
    return {
      device: settings.device,
      rng: new Rng(settings.seed).fork(tensor),
      blasThreads: settings.blasThreads,
      memoryBytes: settings.memoryBytes,
      report: control.report,
      checkpointCancel: control.checkpointCancel,
    };
  }
}
