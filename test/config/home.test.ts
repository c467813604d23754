import test from 'ava'
import { expandHome, homeFlag, homeOf } from '../../supervisor/home.ts'

const linux = { platform: 'linux', homedir: '/home/ada', env: {}, cwd: '/work' } as const

test('with a folder given, everything is in it', t => {
  const expected = {
    name: '/srv/realize',
    given: '/srv/realize',
    config: '/srv/realize/config.toml',
    key: '/srv/realize/key.pem',
    state: '/srv/realize/state',
    cache: '/srv/realize/cache',
    socket: '/srv/realize/control.sock',
    lock: '/srv/realize/state/lock',
  }
  t.deepEqual(homeOf({ ...linux, home: '/srv/realize' }), expected)
  t.deepEqual(homeOf({ ...linux, env: { REALIZE_HOME: '/srv/realize/' } }), expected)
  t.deepEqual(homeOf({ ...linux, home: '../srv/realize', env: { REALIZE_HOME: '/other' } }), expected)
  t.is(homeOf({ ...linux, home: '~/r' }).config, '/home/ada/r/config.toml')
})

test('without one, the XDG places are used, and relative ones are ignored', t => {
  t.deepEqual(homeOf({ ...linux, home: '', env: { XDG_RUNTIME_DIR: '/run/user/1000', XDG_CONFIG_HOME: 'relative' } }), {
    name: '/home/ada/.config/realize',
    given: null,
    config: '/home/ada/.config/realize/config.toml',
    key: '/home/ada/.config/realize/key.pem',
    state: '/home/ada/.local/state/realize',
    cache: '/home/ada/.cache/realize',
    socket: '/run/user/1000/realize/control.sock',
    lock: '/home/ada/.local/state/realize/lock',
  })
  const moved = homeOf({ ...linux, env: { XDG_CONFIG_HOME: '/c', XDG_STATE_HOME: '/s', XDG_CACHE_HOME: '/x' } })
  t.is(moved.config, '/c/realize/config.toml')
  t.is(moved.socket, '/s/realize/control.sock')
  t.is(moved.cache, '/x/realize')
})

test('macOS and Windows have their own places', t => {
  const mac = homeOf({ platform: 'darwin', homedir: '/Users/ada', env: { XDG_CONFIG_HOME: '/c' } })
  t.is(mac.config, '/Users/ada/Library/Application Support/realize/config.toml')
  t.is(mac.cache, '/Users/ada/Library/Caches/realize')
  const windows = homeOf({ platform: 'win32', homedir: 'C:\\Users\\ada', env: {} })
  t.is(windows.config, 'C:\\Users\\ada\\AppData\\Roaming\\realize\\config.toml')
  t.is(windows.state, 'C:\\Users\\ada\\AppData\\Local\\realize\\state')
  t.regex(windows.socket, /^\\\\\.\\pipe\\realize-[0-9a-f]{24}$/)
})

test('each home on Windows has its own pipe, whatever the case of its path', t => {
  const pipe = (home: string) =>
    homeOf({ platform: 'win32', homedir: 'C:\\Users\\ada', env: {}, home, cwd: 'C:\\' }).socket
  t.is(pipe('C:\\Data\\One'), pipe('c:\\data\\one'))
  t.not(pipe('C:\\Data\\One'), pipe('C:\\Data\\Two'))
})

test('a path that is too long for a socket is refused with what to do', t => {
  t.throws(() => homeOf({ ...linux, home: `/srv/${'x'.repeat(100)}` }), {
    code: 'config_invalid',
    message: /118 bytes, and the system allows 103: choose a folder with a shorter path/,
  })
  t.notThrows(() => homeOf({ ...linux, home: `/srv/${'x'.repeat(84)}` }))
  // Counted in bytes, not in letters.
  t.throws(() => homeOf({ ...linux, home: `/srv/${'é'.repeat(60)}` }), { code: 'config_invalid' })
})

test('a hint to type leads to the same home, also through a shell', t => {
  t.is(homeFlag(homeOf(linux)), '')
  t.is(homeFlag(homeOf({ ...linux, home: '/a/b-c' })), ' --home /a/b-c')
  t.is(homeFlag(homeOf({ ...linux, home: "/a/it's $x" })), " --home '/a/it'\\''s $x'")
})

test('only a leading ~ of one’s own is expanded', t => {
  t.is(expandHome('~', '/home/ada'), '/home/ada')
  t.is(expandHome('~/x', '/home/ada/'), '/home/ada/x')
  for (const path of ['~bob/x', '/a/~/b', 'a~']) t.is(expandHome(path, '/home/ada'), path)
})
