/** Text that came from elsewhere (names, paths, reasons), made harmless for a terminal and a log. */

const LENGTH_MAX = 2_000
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu

/** Control characters, line separators and changes of direction as \u{…}; long text cut. */
export function escapeText(text: string): string {
  const short = text.length > LENGTH_MAX ? `${text.slice(0, LENGTH_MAX)}…` : text
  return short.replace(UNSAFE, character => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`)
}
