/** `mount` and `umount`. */
import { resolve } from 'node:path'
import { type Context, withService } from '../context.ts'
import { safe } from '../text.ts'

export async function mount(context: Context, folder: string, allowOther: boolean): Promise<void> {
  const path = absolute(context, folder)
  await withService(context, async client => {
    const result = await client.call('mount', { path, ...(allowOther ? { allowOther } : {}) })
    await context.answer(result, () => [safe`mounted on ${result.path}`])
  })
}

export async function umount(context: Context, folder: string): Promise<void> {
  const path = absolute(context, folder)
  await withService(context, async client => {
    const result = await client.call('umount', { path })
    await context.answer(result, () => [safe`nothing is mounted on ${path} any more`])
  })
}

function absolute({ surroundings }: Context, folder: string): string {
  return resolve(surroundings.cwd, folder)
}
