/** Repositories, builds and editors at work in a mount, on files that came from another peer and are not here. */
import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { temporaryFolder } from '../_temp.ts'
import { arenaName } from '../system/_household.ts'
import { onMount } from '../view/_arenas.ts'
import { buildWorld, same, shell, type World } from './_world.ts'

const LIMIT_MS = 180_000
const IDENTITY =
  'export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@example.org GIT_CONFIG_GLOBAL=/dev/null;'

interface Desk extends World {
  /** Run a command in a folder of the arena: at the first peer's root, and in the guest's mount. */
  here(command: string, folder?: string): Promise<string>
  far(command: string, folder?: string): Promise<string>
  /** Once all agree: the same on all three, nothing in conflict, and no warnings. */
  settled(): Promise<void>
}

async function desk(t: ExecutionContext): Promise<Desk> {
  t.timeout(LIMIT_MS)
  const world = await buildWorld(t, temporaryFolder(t), { files: 0, videoBytes: 0 }, LIMIT_MS)
  const { household, guest, there, alsoThere, docs } = world
  const at = (root: string) => (command: string, folder: string) =>
    shell(`${IDENTITY} ${command}`, join(root, folder), household.folder, LIMIT_MS)
  return {
    ...world,
    here: (command, folder = '.') => at(there)(command, folder),
    far: (command, folder = '.') => at(docs)(command, folder),
    settled: async () => {
      await household.settled(household.peers, 'docs', LIMIT_MS / 1000)
      await same(t, docs, there, alsoThere)
      t.deepEqual((await guest.call('conflicts', { arena: arenaName('docs') })).conflicts, [])
      // Also of descriptors that Node has lost track of, and would close when they belong to somebody else.
      t.deepEqual(
        guest.lines.filter(line => line.includes('Warning: ')),
        [],
      )
    },
  }
}

/** Where a program is missing the title says so. */
function withPrograms(title: string, programs: string[], body: (t: ExecutionContext, d: Desk) => Promise<void>): void {
  const there = programs.filter(program => spawnSync(program, ['--version']).error === undefined)
  const missing = programs.find(program => !there.includes(program))
  if (missing === undefined) return onMount(title, async t => body(t, await desk(t)))
  onMount(`${title} (not done: no ${missing} here)`, async t => void t.pass())
}

withPrograms('git works on in a repository that came from another peer and is not here', ['git'], async (t, d) => {
  await d.here('git init -q -b main repository')
  await d.here('mkdir -p src/deep; for n in $(seq 80); do seq $n > src/deep/$n.txt; done', 'repository')
  await d.here(
    'git add . && git commit -qm first && git tag v1 && seq 500 > src/deep/7.txt && git commit -qam second',
    'repository',
  )
  await d.settled()
  const git = (command: string) => d.far(`git ${command}`, 'repository')
  t.is((await git('log --oneline')).trim().split('\n').length, 2)
  t.is(await git('status --porcelain'), '')
  t.is(await git('diff v1 --stat -- src/deep/8.txt'), '')
  await d.far('echo more >> src/deep/9.txt; rm src/deep/10.txt; echo new > new', 'repository')
  t.deepEqual(
    (await git('status --porcelain'))
      .trim()
      .split(/\s*\n\s*/)
      .sort(),
    ['?? new', 'D src/deep/10.txt', 'M src/deep/9.txt'],
  )
  await git('add -A')
  await git('commit -qm third')
  await git('checkout -qb other v1')
  t.is((await d.far('cat src/deep/7.txt | wc -l', 'repository')).trim(), '7')
  await d.far('echo on a branch > branch && git add . && git commit -qm fourth && git checkout -q main', 'repository')
  await git('merge -q --no-edit other')
  await git('gc -q')
  await git('fsck --strict')
  await d.far(
    'git init -q -b main made-here && cd made-here && echo one > file && git add . && git commit -qm "made here"',
  )
  await d.settled()
  for (const repository of ['repository', 'made-here']) {
    t.is(await d.here('git log --format=%H --all', repository), await d.far('git log --format=%H --all', repository))
    await d.here('git fsck --strict', repository)
    t.is(await d.here('git status --porcelain', repository), '')
  }
  t.is((await d.here('git log --oneline main', 'repository')).trim().split('\n').length, 5)
})

const COUNTER = `#include <stdio.h>
#include "parts.h"
int main(void) { printf("%d\\n", ONE_MORE(first() + second())); return 0; }
`
const MAKEFILE = `OBJECTS = main.o first.o second.o
counter: $(OBJECTS)
\tcc -o $@ $(OBJECTS)
%.o: %.c parts.h
\tcc -c -o $@ $<
\t@echo made $@ >> made
clean:
\trm -f counter $(OBJECTS) made
`

withPrograms('make builds sources that are not here, and anew only what has changed', ['make', 'cc'], async (t, d) => {
  fs.mkdirSync(join(d.there, 'project'))
  const write = (root: string, name: string, text: string) => fs.writeFileSync(join(root, 'project', name), text)
  write(d.there, 'main.c', COUNTER)
  write(d.there, 'parts.h', 'int first(void); int second(void);\n#define ONE_MORE(n) ((n) + 1)\n')
  write(d.there, 'first.c', '#include "parts.h"\nint first(void) { return 20; }\n')
  write(d.there, 'second.c', '#include "parts.h"\nint second(void) { return 21; }\n')
  write(d.there, 'Makefile', MAKEFILE)
  await d.settled()
  await d.far('make -s -j2', 'project')
  t.is(await d.far('./counter', 'project'), '42\n')
  t.is((await d.far('sort made', 'project')).trim(), 'made first.o\nmade main.o\nmade second.o')
  await d.far('rm made; sed -i s/21/121/ second.c; make -s', 'project')
  t.is(await d.far('./counter; cat made', 'project'), '142\nmade second.o\n')
  await d.settled()
  t.is(await d.here('./counter', 'project'), '142\n')
  // What was built elsewhere is up to date here as well, also where only its times are known.
  await d.far('make -s -q counter', 'project')
  await d.far('make -s clean', 'project')
  await d.settled()
  t.false(fs.existsSync(join(d.there, 'project/counter')))
})

const MAPPED = `#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
int main(int count, char **names) {
  int fd = open(names[1], O_RDWR);
  char *map = mmap(0, 60000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (count < 2 || map == MAP_FAILED || memcmp(map, "before", 6) != 0) return 1;
  memcpy(map, "MAPPED", 6);
  memcpy(map + 59994, "AFTER\\n", 6);
  return msync(map, 60000, MS_SYNC);
}
`

/** How programs save a file, and what is in it then. \`$F\` is its name; before, it holds the line "before NAME" many times. */
const WAYS: readonly { name: string; command: string; program?: string }[] = [
  { name: 'truncated', command: 'echo saved > $F' },
  { name: 'appended', command: 'echo saved >> $F' },
  { name: 'patched', command: 'printf SAVED | dd of=$F bs=1 seek=3000 conv=notrunc status=none' },
  { name: 'shortened', command: 'truncate -s 5000 $F' },
  { name: 'renamed-over', command: 'echo saved > .$F.tmp && sync .$F.tmp && mv .$F.tmp $F' },
  { name: 'edited-by-sed', command: 'sed -i s/before/saved/ $F' },
  { name: 'with-backup', command: 'mv $F $F~ && echo saved > $F' },
  { name: 'with-copy', command: 'cp -p $F $F.orig && echo saved > $F' },
  { name: 'with-link', command: 'ln $F $F.bak && echo saved > .$F && mv .$F $F' },
  { name: 'removed-and-made', command: 'rm $F && echo saved > $F' },
  { name: 'mapped', command: '$OUT/mapped $F', program: 'cc' },
  { name: 'vim', command: "vim -Nu NONE -n -es -c 's/before/saved/' -c wq $F", program: 'vim' },
  {
    name: 'vim-with-backup',
    command: "vim -Nu NONE -es -c 'set backup backupcopy=no' -c 's/before/saved/' -c wq $F",
    program: 'vim',
  },
  {
    name: 'vim-in-place',
    command: "vim -Nu NONE -es -c 'set backup backupcopy=yes' -c 's/before/saved/' -c wq $F",
    program: 'vim',
  },
]

withPrograms('files that are not here are saved in all the ways of editors', [], async (t, d) => {
  const has = (program: string) => spawnSync(program, ['--version']).error === undefined
  const ways = WAYS.filter(({ program }) => program === undefined || has(program))
  if (ways.length < WAYS.length) t.log(`only ${ways.map(({ name }) => name).join(', ')}`)
  if (has('cc')) await d.here(`cat > $OUT/mapped.c <<'END'\n${MAPPED}END\ncc -o $OUT/mapped $OUT/mapped.c`)
  const before = (name: string) => `before ${name}\n`.repeat(60_000).slice(0, 60_000)
  // What the same commands do to the same files on a disk.
  const disk = join(d.household.folder, 'disk')
  fs.mkdirSync(disk)
  for (const { name } of ways) for (const root of [d.there, disk]) fs.writeFileSync(join(root, name), before(name))
  await d.settled()
  for (const { name, command } of ways) {
    await d.far(`F=${name}; ${command}`)
    await shell(`F=${name}; ${command}`, disk, d.household.folder, LIMIT_MS)
  }
  t.is(await d.far('md5sum $(ls -A)'), await shell('md5sum $(ls -A)', disk, '', LIMIT_MS))
  await d.settled()
  t.is(await d.here('md5sum $(ls -A | grep -v "^.realize$")'), await shell('md5sum $(ls -A)', disk, '', LIMIT_MS))
})

withPrograms('a database that is not here is opened, changed and vacuumed', ['sqlite3'], async (t, d) => {
  const sql = (text: string) => `sqlite3 data.db "${text}"`
  await d.here(
    sql(
      'create table t (n integer primary key, text); with recursive c(n) as (select 1 union all select n + 1 from c where n < 2000) insert into t select n, hex(randomblob(40)) from c;',
    ),
  )
  await d.settled()
  t.is(await d.far(sql('select count(*), sum(n) from t')), '2000|2001000\n')
  await d.far(
    sql("pragma journal_mode = wal; delete from t where n % 2 = 0; insert into t values (10000, 'made here');"),
  )
  await d.far(
    sql(
      'update t set text = upper(text) where n = 10000; pragma wal_checkpoint(truncate); pragma journal_mode = delete; vacuum;',
    ),
  )
  t.is(
    await d.far(sql('pragma integrity_check; select count(*), max(text) from t where n = 10000')),
    'ok\n1|MADE HERE\n',
  )
  await d.settled()
  t.is(await d.here(sql('pragma integrity_check; select count(*) from t')), 'ok\n1001\n')
})
