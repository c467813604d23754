/**
 * A small program in C that opens files to write them while a signal interrupts it again and again, or while others do the same: as
 * programs do that have timers and children.
 */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { Cleaning } from '../_temp.ts'
import { compiled } from './_compiled.ts'

export function signalledProgram(t: Cleaning): string {
  return compiled(t, 'signalled', SOURCE)
}

export interface Signalled {
  /** Files below it are called f0, f1, … */
  folder: string
  count: number
  /** `timer`: a signal of its own, all the time; `person`: somebody wants it to end, once while it opens each file; `nobody`: none. */
  by: 'timer' | 'person' | 'nobody'
  /** What each file is written with. */
  byte: number
}

/**
 * Opens every file for writing, writes 500 bytes at its start, closes it and reads it: f0, f3, … are emptied by the opening, f1, f4, … too,
 * and would be made; f2, f5, … stay as long as they are. Resolves to how many openings were interrupted; rejects with what was wrong.
 */
export async function writeSignalled(program: string, { folder, count, by, byte }: Signalled): Promise<number> {
  const { stdout } = await promisify(execFile)(program, [folder, `${count}`, by, `${byte}`])
  return Number(stdout)
}

const SOURCE = String.raw`
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SIZE 500

static long interrupted;
static void on_signal(int number) { (void)number; }

static timer_t timer_of(int number) {
  struct sigaction action = { .sa_handler = on_signal };
  sigaction(number, &action, NULL);
  struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = number };
  timer_t timer = 0;
  if (timer_create(CLOCK_MONOTONIC, &event, &timer) < 0) exit(3);
  return timer;
}

static void set(timer_t timer, long after_us, long every_us) {
  struct itimerspec times = { { 0, every_us * 1000 }, { 0, after_us * 1000 } };
  timer_settime(timer, 0, &times, NULL);
}

static int opened(const char *path, int flags) {
  for (;;) {
    int fd = open(path, flags, 0644);
    if (fd >= 0) return fd;
    if (errno != EINTR) {
      fprintf(stderr, "open %s: %s\n", path, strerror(errno));
      exit(1);
    }
    interrupted++;
  }
}

int main(int words_count, char **words) {
  if (words_count != 5) return 2;
  int count = atoi(words[2]), person = !strcmp(words[3], "person"), alone = strcmp(words[3], "nobody");
  char content[SIZE], found[SIZE];
  memset(content, atoi(words[4]), SIZE);
  timer_t timer = 0;
  if (alone) timer = timer_of(person ? SIGINT : SIGALRM);
  if (alone && !person) set(timer, 100, 100);
  static const int kinds[] = { O_WRONLY | O_TRUNC, O_WRONLY | O_CREAT | O_TRUNC, O_RDWR };
  for (int index = 0; index < count; index++) {
    char path[4096];
    snprintf(path, sizeof path, "%s/f%d", words[1], index);
    /* At any time of the opening. */
    if (person) set(timer, 1 + (index * 37) % 700, 0);
    int fd = opened(path, kinds[index % 3]);
    if (write(fd, content, SIZE) != SIZE) { fprintf(stderr, "write %s: %s\n", path, strerror(errno)); return 1; }
    close(fd);
    fd = opened(path, O_RDONLY);
    struct stat stat;
    ssize_t read_bytes = read(fd, found, SIZE);
    if (fstat(fd, &stat) < 0) { fprintf(stderr, "stat %s: %s\n", path, strerror(errno)); return 1; }
    /* Others may just have emptied it, unless nobody else is there. */
    int same = read_bytes == SIZE && !memcmp(content, found, SIZE) && (index % 3 == 2 ? stat.st_size > SIZE : stat.st_size == SIZE);
    if (alone && !same) { fprintf(stderr, "%s: %zd of %ld bytes\n", path, read_bytes, (long)stat.st_size); return 1; }
    close(fd);
  }
  printf("%ld\n", interrupted);
  return 0;
}
`
