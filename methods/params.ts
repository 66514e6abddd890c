/** The one way in for a method's parameters. */
import * as z from 'zod';
import { PithError } from '../core/errors.js';

/** BAD_PARAMS (exit 64) says which one and why. */
export function parseParams<T>(method: string, schema: z.ZodType<T>, raw: unknown): T {
  const parsed = schema.safeParse(raw);
  if (!parsed.success) throw new PithError('BAD_PARAMS', { method, message: z.prettifyError(parsed.error) });
  return parsed.data;
}
