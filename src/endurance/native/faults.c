/*
 * Makes system calls fail, for programs that are started with this library in LD_PRELOAD.
 *
 * A plan names a kind of call (write, fsync, rename, open, create), a prefix of paths, which of the matching calls
 * fails first, and how: with an error number, or, where that is 0, by writing half of the bytes only. A lasting fault
 * fails all later matching calls too, as a full disk does. One plan at a time, made and ended by one thread; calls may
 * come from any.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char prefix[PATH_MAX];
static char call[16];
static long first;
static int fault;
static int lasts;
static char failed_path[PATH_MAX];
static atomic_int armed;
static atomic_long seen;
static atomic_long failed;

void jtrelu_faults_arm(const char* paths, const char* kind, long number, int error, int lasting) {
  snprintf(prefix, sizeof prefix, "%s", paths);
  snprintf(call, sizeof call, "%s", kind);
  first = number;
  fault = error;
  lasts = lasting;
  failed_path[0] = 0;
  atomic_store(&seen, 0);
  atomic_store(&failed, 0);
  atomic_store(&armed, 1);
}

void jtrelu_faults_disarm(void) { atomic_store(&armed, 0); }

/* Matching calls of the last plan, whether they failed or not. */
long jtrelu_faults_seen(void) { return atomic_load(&seen); }

/* Those that were made to fail. */
long jtrelu_faults_failed(void) { return atomic_load(&failed); }

/* The path that the first of them was about. */
const char* jtrelu_faults_path(void) { return failed_path; }

/* Whether a call is to fail. */
static int fails(const char* kind, const char* path) {
  if (!atomic_load(&armed) || strcmp(kind, call) != 0 || path == NULL || strncmp(path, prefix, strlen(prefix)) != 0) {
    return 0;
  }
  long number = atomic_fetch_add(&seen, 1) + 1;
  if (number != first && !(lasts && number > first)) { return 0; }
  if (atomic_fetch_add(&failed, 1) == 0) { snprintf(failed_path, sizeof failed_path, "%s", path); }
  return 1;
}

static int fails_file(const char* kind, int file) {
  if (!atomic_load(&armed) || strcmp(kind, call) != 0) { return 0; }
  char link[64];
  char path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) { return 0; }
  path[length] = 0;
  return fails(kind, path);
}

static int with_error(void) {
  errno = fault;
  return -1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void* bytes, size_t count) {
  if (count > 0 && fails_file("write", file)) {
    if (fault != 0) { return with_error(); }
    count = (count + 1) / 2;
  }
  return REAL(write)(file, bytes, count);
}

ssize_t pwrite64(int file, const void* bytes, size_t count, off64_t position) {
  if (count > 0 && fails_file("write", file)) {
    if (fault != 0) { return with_error(); }
    count = (count + 1) / 2;
  }
  return REAL(pwrite64)(file, bytes, count, position);
}

ssize_t writev(int file, const struct iovec* parts, int count) {
  if (count > 0 && fails_file("write", file)) {
    if (fault != 0) { return with_error(); }
    count = 1;
  }
  return REAL(writev)(file, parts, count);
}

int fsync(int file) { return fails_file("fsync", file) ? with_error() : REAL(fsync)(file); }

int fdatasync(int file) { return fails_file("fsync", file) ? with_error() : REAL(fdatasync)(file); }

int rename(const char* from, const char* to) { return fails("rename", to) ? with_error() : REAL(rename)(from, to); }

static int fails_open(const char* path, int flags) {
  return fails("open", path) || ((flags & O_CREAT) != 0 && fails("create", path));
}

/* The mode is there only where a file may be made. */
#define MODE(flags)                                                                                                    \
  mode_t mode = 0;                                                                                                     \
  if (((flags) & (O_CREAT | O_TMPFILE))) {                                                                             \
    va_list rest;                                                                                                      \
    va_start(rest, flags);                                                                                             \
    mode = va_arg(rest, mode_t);                                                                                       \
    va_end(rest);                                                                                                      \
  }

int open(const char* path, int flags, ...) {
  MODE(flags)
  return fails_open(path, flags) ? with_error() : REAL(open)(path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  MODE(flags)
  return fails_open(path, flags) ? with_error() : REAL(open64)(path, flags, mode);
}
