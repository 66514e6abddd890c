/**
 * A size shared by what errors do to the model's predictions. Sensitivities hold near the delta that they were measured at; where a size is
 * small, sharing by them in full goes too far. So the whole is measured too, without weights and by several powers of them, and what diverges
 * least is kept.
 */
import type { ProgressEvent } from '../core/events.js';
import type { ScheduleOptions } from './schedule.js';
import { divergence, sensitivities, type GroupSensitivity, type Probes } from './delta-sensitivity.js';
import { reachTarget, type TargetRun } from './delta-target.js';

export interface WeighRun {
  readonly target: TargetRun;
  readonly schedule: ScheduleOptions;
  /** Lends the delta as it stands now. */
  readonly probe: <T>(act: (probes: Probes) => AsyncGenerator<ProgressEvent, T, void>) => AsyncGenerator<ProgressEvent, T, void>;
}

export interface Weighed {
  readonly groups: readonly GroupSensitivity[];
  /** Mean KL divergence from the fine-tune on the data, nats a token, with the weights to this power. */
  readonly tried: readonly { readonly power: number; readonly kld: number }[];
  /** The power that was kept. */
  readonly power: number;
}

const POWERS = [0.75, 0.5, 0.25];

/** The target has been reached without weights before. */
export async function* weighTarget(run: WeighRun): AsyncGenerator<ProgressEvent, Weighed, void> {
  const { target, schedule } = run;
  const whole = (): AsyncGenerator<ProgressEvent, number, void> => run.probe((p) => divergence(p, schedule));
  const tried = [{ power: 0, kld: yield* whole() }];
  const { weights, groups } = yield* run.probe((p) => sensitivities(p, schedule));
  const share = async function* (power: number): AsyncGenerator<ProgressEvent, void, void> {
    target.allocator.weigh(new Map([...weights].map(([name, w]) => [name, w ** power])));
    yield* reachTarget(target);
  };
  for (const power of POWERS) {
    yield* share(power);
    tried.push({ power, kld: yield* whole() });
  }
  const { power } = tried.reduce((best, t) => (t.kld < best.kld ? t : best));
  if (power !== POWERS.at(-1)) yield* share(power);
  return { groups, tried, power };
}
