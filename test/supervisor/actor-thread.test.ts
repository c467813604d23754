import test, { type ExecutionContext } from 'ava'
import { ActorThread } from '../../supervisor/actor-thread.ts'
import { systemClock } from '../../supervisor/clock.ts'
import type { RestartPolicy } from '../../supervisor/restart.ts'
import { signal } from './_temp.ts'

type Command =
  | { type: 'echo'; id: number; text: string }
  | { type: 'silent'; id: number }
  | { type: 'die' }
  | { type: 'stop' }
type Report = { type: 'ready' } | { type: 'reply'; id: number; result: unknown }

const policy: RestartPolicy = {
  restart: 'always',
  failureHalfLifeMs: 60_000,
  failuresMax: 2,
  backoffMs: 1,
  pauseMs: 60_000,
}

function startActor(t: ExecutionContext) {
  let starts = 0
  let heard = () => {}
  const died = signal<{ message: string; resting: boolean }>()
  const rested = signal()
  const events: string[] = []
  const thread: ActorThread<Command, Report> = new ActorThread<Command, Report>({
    name: 'actor',
    entry: new URL('./_actor.js', import.meta.url),
    policy,
    clock: systemClock,
    workerData: () => ({}),
    receive(report) {
      if (report.type === 'reply') return thread.answer(report.id, report.result)
      starts++
      heard()
    },
    started: () => {},
    died(failure, resting) {
      died.resolve({ message: failure.message, resting })
      if (resting) rested.resolve()
    },
    log: event => events.push(event),
  })
  thread.start()
  t.teardown(() => thread.stop({ type: 'stop' }))
  return {
    thread,
    died: died.promise,
    rested: rested.promise,
    events,
    /** Resolves when the thread has come up for the so many-th time. */
    up: (count: number) =>
      new Promise<void>(resolve => {
        heard = () => {
          if (starts >= count) resolve()
        }
        heard()
      }),
  }
}

test('a question is answered with what belongs to it', async t => {
  const { thread } = startActor(t)
  const answers = ['a', 'b'].map(text => thread.ask(id => ({ type: 'echo', id, text }), 10_000))
  t.is(thread.mailbox, 2)
  t.deepEqual(await Promise.all(answers), ['a', 'b'])
  t.is(thread.mailbox, 0)
})

test('a question that is not answered ends when its time is up', async t => {
  const { thread } = startActor(t)
  t.like(await t.throwsAsync(thread.ask(id => ({ type: 'silent', id }), 10)), { code: 'timed_out' })
  t.is(thread.mailbox, 0)
})

test('a thread that dies takes its questions with it, tells why, and is started again', async t => {
  const { thread, died, up, events } = startActor(t)
  await up(1)
  const question = thread.ask(id => ({ type: 'silent', id }), Infinity)
  thread.post({ type: 'die' })
  t.like(await t.throwsAsync(question), { code: 'arena_unavailable' })
  t.deepEqual(await died, { message: 'told to die', resting: false })
  await up(2)
  t.is(thread.restarts, 1)
  t.is(thread.lastError, 'told to die')
  t.is(await thread.ask(id => ({ type: 'echo', id, text: 'again' }), 10_000), 'again')
  t.deepEqual(events, ['actor_started', 'actor_failed', 'actor_restarted', 'actor_started'])
})

test('a thread that is killed is started again', async t => {
  const { thread, up } = startActor(t)
  await up(1)
  t.true(await thread.kill())
  await up(2)
  t.is(thread.restarts, 1)
})

test('a thread that dies too often is left to rest, and says so', async t => {
  const { thread, up, rested, events } = startActor(t)
  for (let i = 1; i <= 3; i++) {
    await up(i)
    thread.post({ type: 'die' })
  }
  await rested
  t.is(thread.threadId, null)
  t.is(events.at(-1), 'actor_given_up')
  t.like(await t.throwsAsync(thread.ask(id => ({ type: 'silent', id }), 10)), { code: 'arena_unavailable' })
})

test('a stopped thread is not started again', async t => {
  const { thread, up } = startActor(t)
  await up(1)
  t.true(await thread.stop({ type: 'stop' }))
  t.is(thread.restarts, 0)
  t.false(thread.post({ type: 'die' }))
})
