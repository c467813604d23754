/**
 * A small program in C that does with a file what Node cannot: reads and writes it through a mapping, and reads it again and again
 * while others replace it. Compiled by the test that needs it.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { within } from '../_deadline.ts'
import type { Cleaning } from '../_temp.ts'
import { compiled } from './_compiled.ts'

const END_MS = 60_000

/** Compiles the program; where it is. */
export function mappedProgram(t: Cleaning): string {
  return compiled(t, 'mapped', SOURCE)
}

/** Bytes of the version of this number, as the program's `watch` expects them: each word says its version and its place. */
export function versionBytes(version: number): Buffer {
  const bytes = Buffer.alloc(versionSize(version))
  for (let at = 0; at < bytes.length; at += 8) {
    bytes.writeUInt32LE(at / 8, at)
    bytes.writeUInt32LE(version, at + 4)
  }
  return bytes
}

/** Not all have the same size. */
export function versionSize(version: number): number {
  return 300_000 + (version % 3) * 80_000
}

/** What a reader has seen. */
export interface Watched {
  turns: number
  /** How many times another version than the last was read. */
  changes: number
  /** How many times content was nowhere any more, or not yet. */
  unreachable: number
  /** The first few of what must not be. */
  faults: string[]
}

/**
 * Reads a file again and again until the function that is returned is called. `opened`: opens it each time; `held`: keeps it open for
 * a while, and reads it many times; `mapped`: the same through a mapping.
 */
export async function watch(
  t: Cleaning,
  program: string,
  how: 'opened' | 'held' | 'mapped',
  file: string,
): Promise<() => Promise<Watched>> {
  const child = spawn(program, ['watch', how, file], { stdio: ['pipe', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  let printed = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    printed += text
  })
  const closed = once(child, 'close')
  await within(END_MS, 'the reader reads', once(child.stdout, 'data'))
  return async () => {
    child.stdin.end()
    const [code, signal] = await within(END_MS, `the reader '${how}' ends`, closed)
    if (code !== 0) throw new Error(`the reader '${how}' ended with ${signal ?? code}: ${printed}`)
    return JSON.parse(printed.slice(printed.indexOf('{')))
  }
}

const SOURCE = String.raw`
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static sigjmp_buf out;
static void on_bus(int number) { (void)number; siglongjmp(out, 1); }

/* mapped read|write FILE OFFSET LENGTH [BYTE]: ends with an errno */
static int once_mapped(int write_it, const char *file, long offset, long length, int byte) {
  int fd = open(file, write_it ? O_RDWR : O_RDONLY);
  if (fd < 0) return errno;
  struct stat stat;
  if (fstat(fd, &stat) < 0) return errno;
  if (!S_ISREG(stat.st_mode)) return ENODEV;
  if (offset >= stat.st_size) return 0;
  if (length > stat.st_size - offset) length = stat.st_size - offset;
  char *map = mmap(NULL, stat.st_size, write_it ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) return errno;
  if (sigsetjmp(out, 1)) return EHOSTUNREACH;
  if (write_it) {
    memset(map + offset, byte, length);
    if (msync(map, stat.st_size, MS_SYNC) < 0) return errno;
  } else {
    char *copy = malloc(length + 1);
    memcpy(copy, map + offset, length);
    for (long done = 0; done < length;) {
      ssize_t count = write(1, copy + done, length - done);
      if (count < 0) return errno;
      done += count;
    }
    free(copy);
  }
  munmap(map, stat.st_size);
  return close(fd) < 0 ? errno : 0;
}

static long turns, changes, unreachable, fault_count;
static uint32_t last = UINT32_MAX;
static char faults[4096];

static void fault(const char *what, long version, long at) {
  if (fault_count++ > 8) return;
  size_t length = strlen(faults);
  snprintf(faults + length, sizeof faults - length, "%s\"turn %ld: %s (version %ld, at %ld)\"", length ? "," : "", turns, what, version, at);
}

static long size_of(uint32_t version) { return 300000 + (version % 3) * 80000L; }

/* The version that these bytes are of, all of them; -1: a mix. */
static long version_of(const volatile uint32_t *words, long bytes, long offset) {
  uint32_t version = words[1];
  for (long at = 0; at < bytes / 4; at += 2) {
    if (words[at] != (uint32_t)((offset + at * 4) / 8)) return -1;
    if (words[at + 1] != version) return -1;
  }
  return version;
}

#define CHUNK 65536
/* Reads all of it: the version, -1 after a fault, -2 if it cannot be had now. */
static long read_all(int fd) {
  static uint32_t buffer[CHUNK / 4];
  long version = -1, offset = 0;
  for (;;) {
    long filled = 0;
    while (filled < CHUNK) {
      ssize_t count = pread(fd, (char *)buffer + filled, CHUNK - filled, offset + filled);
      if (count < 0 && errno == EHOSTUNREACH) return -2;
      if (count < 0) { fault(strerror(errno), version, offset); return -1; }
      if (count == 0) break;
      filled += count;
    }
    if (filled == 0) break;
    long found = version_of(buffer, filled, offset);
    if (found < 0) { fault("a mix in one reading", version, offset); return -1; }
    if (version >= 0 && found != version) { fault("a mix of two readings", version, offset); return -1; }
    version = found;
    offset += filled;
  }
  if (version < 0 || offset != size_of(version)) { fault("a wrong size", version, offset); return -1; }
  return version;
}

static void seen(long version) {
  if (version < 0) return;
  if ((uint32_t)version != last) changes++;
  last = version;
}

static int ended(int wait_ms) {
  struct pollfd poll_it = { .fd = 0, .events = POLLIN };
  return poll(&poll_it, 1, wait_ms) > 0;
}

static void look(const char *how, const char *file) {
  int fd = open(file, O_RDONLY);
  if (fd < 0) {
    if (errno == EHOSTUNREACH) unreachable++;
    else fault(strerror(errno), -1, -1);
    return;
  }
  if (!strcmp(how, "mapped")) {
    struct stat stat;
    fstat(fd, &stat);
    uint32_t *map = mmap(NULL, stat.st_size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED) return fault("mmap", -1, errno);
    volatile long first = -1;
    for (volatile int times = 0; times < 20; times++) {
      if (sigsetjmp(out, 1)) { unreachable++; break; }
      long version = version_of(map, stat.st_size, 0);
      if (version < 0 || stat.st_size != size_of(version)) { fault("a mix in a mapping", version, stat.st_size); break; }
      if (first >= 0 && version != first) { fault("a mapping that changes", version, first); break; }
      first = version;
      seen(version);
      if (ended(5)) break;
    }
    munmap(map, stat.st_size);
    return;
  }
  long first = -1;
  for (int times = !strcmp(how, "held") ? 20 : 1; times > 0; times--) {
    long version = read_all(fd);
    if (version == -2) unreachable++;
    if (version >= 0) {
      if (first >= 0 && version != first) fault("an open file that changes", version, first);
      first = version;
      seen(version);
    }
    if (times > 1 && ended(5)) break;
  }
  close(fd);
}

int main(int count, char **words) {
  signal(SIGBUS, on_bus);
  if (count >= 5 && strcmp(words[1], "watch"))
    return once_mapped(!strcmp(words[1], "write"), words[2], atol(words[3]), atol(words[4]), count > 5 ? atoi(words[5]) : 0);
  if (count != 4) return EINVAL;
  for (; !ended(1); turns++) {
    look(words[2], words[3]);
    if (turns == 0) { puts("reading"); fflush(stdout); }
  }
  printf("{\"turns\":%ld,\"changes\":%ld,\"unreachable\":%ld,\"faults\":[%s]}\n", turns, changes, unreachable, faults);
  return 0;
}
`
