import { expect } from 'chai';
import { PithError, type ErrorCode } from '../../core/errors.js';

/** Runs and returns the PithError; fails when nothing, or something else, is thrown. */
export async function errorOf(run: () => unknown): Promise<PithError> {
  try {
    await run();
  } catch (error) {
    expect(error).to.be.instanceOf(PithError);
    return error as PithError;
  }
  throw new Error('expected an error, got none');
}

export async function expectCode(code: ErrorCode, run: () => unknown): Promise<PithError> {
  const error = await errorOf(run);
  expect(error.code, error.message).to.equal(code);
  return error;
}
