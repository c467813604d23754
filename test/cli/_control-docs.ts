/** The reference part of docs/control.md, made from the schemas. */
import type { TSchema } from '@sinclair/typebox'
import { controlMethods } from '../../protocol/control.ts'

export const MARK = '<!-- From here on: made from protocol/control.ts. -->'

export function methodReference(): string {
  const sections = Object.entries(controlMethods).map(([name, { forwardedTo, params }]) => {
    const rows = Object.entries(params.properties).map(([key, schema]) => {
      const required = (params.required ?? []).includes(key)
      return `| \`${key}\` | ${required ? 'yes' : ''} | \`${cell(schema)}\` |`
    })
    const table =
      rows.length === 0 ? 'No parameters.' : ['| parameter | required | schema |', '|---|---|---|', ...rows].join('\n')
    return `### ${name}\n\nAnswered by the ${forwardedTo}.\n\n${table}`
  })
  return `${MARK}\n\n${sections.join('\n\n')}\n`
}

/** A schema as JSON. A bar would end the table's cell. */
function cell(schema: TSchema): string {
  return JSON.stringify(schema).replaceAll('|', '\\|')
}
