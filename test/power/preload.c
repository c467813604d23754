/*
 * Loaded before libc into a service under test (LD_PRELOAD): the disk as a machine sees it that loses its power.
 *
 * Each call that makes something durable is told to the test (_shadow.ts), which copies what the call covers and answers when
 * the call is to return; nothing reaches the real disk's cache sooner for it. The boot id is a file of the test's. Inodes and ctimes
 * that a restored copy cannot have are told as they were: a power loss does not change them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Telling the test */

static void tell(const char *kind, int fd, long offset, long length) {
  const char *socket_path = getenv("TEST_POWER_SOCKET");
  if (socket_path == NULL) return;
  char link[64], path[4096], line[4400], answer;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return;
  path[size] = 0;
  int saved = errno;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, socket_path, sizeof address.sun_path - 1);
  int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connection >= 0 && connect(connection, (struct sockaddr *)&address, sizeof address) == 0) {
    int length_of_line = snprintf(line, sizeof line, "%s\t%ld\t%ld\t%s\n", kind, offset, length, path);
    if (send(connection, line, length_of_line, MSG_NOSIGNAL) == length_of_line)
      while (recv(connection, &answer, 1, 0) < 0 && errno == EINTR);
  }
  if (connection >= 0) close(connection);
  errno = saved;
}

int syncfs(int fd) {
  tell("system", fd, 0, 0);
  return 0;
}

int fsync(int fd) {
  tell("file", fd, 0, 0);
  return 0;
}

int fdatasync(int fd) {
  tell("file", fd, 0, 0);
  return 0;
}

/* LMDB writes its meta pages through a descriptor that is synchronous by itself. */
ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset) {
  ssize_t written = NEXT(pwrite64)(fd, bytes, size, offset);
  if (written > 0 && (fcntl(fd, F_GETFL) & O_DSYNC) != 0) tell("range", fd, offset, written);
  return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) {
  return pwrite64(fd, bytes, size, offset);
}

/* The boot id */

static const char *replaced(const char *path) {
  const char *boot = getenv("TEST_POWER_BOOT");
  return boot != NULL && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0 ? boot : path;
}

int open(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  mode_t mode = va_arg(more, mode_t);
  va_end(more);
  return NEXT(open)(replaced(path), flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  mode_t mode = va_arg(more, mode_t);
  va_end(more);
  return NEXT(open64)(replaced(path), flags, mode);
}

/* Inodes and ctimes as they were */

struct row {
  uint64_t ino;
  int64_t ctime_ns;
  uint64_t ino_before;
  int64_t ctime_ns_before;
};
static struct row *rows;
static size_t row_count;

__attribute__((constructor)) static void read_rows(void) {
  const char *path = getenv("TEST_POWER_INODES");
  FILE *file = path == NULL ? NULL : fopen(path, "rb");
  if (file == NULL) return;
  fseek(file, 0, SEEK_END);
  row_count = ftell(file) / sizeof(struct row);
  rewind(file);
  rows = calloc(row_count + 1, sizeof(struct row));
  if (rows == NULL || fread(rows, sizeof(struct row), row_count, file) != row_count) row_count = 0;
  fclose(file);
}

/* Sorted by inode. */
static void as_before(struct statx *stat) {
  size_t low = 0, high = row_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (rows[middle].ino < stat->stx_ino) low = middle + 1;
    else high = middle;
  }
  if (low == row_count || rows[low].ino != stat->stx_ino) return;
  stat->stx_ino = rows[low].ino_before;
  int64_t ctime_ns = stat->stx_ctime.tv_sec * 1000000000LL + stat->stx_ctime.tv_nsec;
  if (ctime_ns != rows[low].ctime_ns) return;
  stat->stx_ctime.tv_sec = rows[low].ctime_ns_before / 1000000000LL;
  stat->stx_ctime.tv_nsec = rows[low].ctime_ns_before % 1000000000LL;
}

int statx(int folder, const char *restrict path, int flags, unsigned int mask, struct statx *restrict stat) {
  int result = NEXT(statx)(folder, path, flags, mask, stat);
  if (result == 0) as_before(stat);
  return result;
}

/* Node's own way to statx. */
long syscall(long number, ...) {
  va_list more;
  long words[6];
  va_start(more, number);
  for (int i = 0; i < 6; i++) words[i] = va_arg(more, long);
  va_end(more);
  long result = NEXT(syscall)(number, words[0], words[1], words[2], words[3], words[4], words[5]);
  if (number == SYS_statx && result == 0) as_before((struct statx *)words[4]);
  return result;
}
