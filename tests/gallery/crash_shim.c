/* Preloaded by test_crashes.py: counts, records or ends a process before calls that change files under one folder. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[4096];
static long calls, last_call;
static int journal = -1;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Watch a folder: end the process before call number `kill_at` (0: never), write calls to `file` ("": do not). */
void crash_watch(const char *path, long kill_at, const char *file) {
    calls = 0;
    last_call = kill_at;
    journal = *file ? open(file, O_CREAT | O_TRUNC | O_WRONLY, 0600) : -1;
    strncpy(folder, path, sizeof folder - 1);
}

long crash_calls(void) { return calls; }

static int watched(const char *path) { return *folder && strncmp(path, folder, strlen(folder)) == 0; }

static void put(const void *data, size_t size) {
    if (REAL(write)(journal, data, size) != (ssize_t)size) abort();
}

static void before(char kind, const char *path, const char *other, int64_t offset, const void *data, size_t size) {
    if (!watched(path) && !(other && watched(other))) return;
    if (++calls == last_call) kill(getpid(), SIGKILL);
    if (journal < 0) return;
    uint32_t sizes[3] = {strlen(path), other ? strlen(other) : 0, size};
    put(&kind, 1);
    put(sizes, sizeof sizes);
    put(&offset, sizeof offset);
    put(path, sizes[0]);
    put(other, sizes[1]);
    put(data, size);
}

static void before_fd(char kind, int fd, int64_t offset, const void *data, size_t size) {
    char link[64], path[4096];
    if (!*folder || fd == journal) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = 0;
    before(kind, path, 0, offset, data, size);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    before_fd('w', fd, offset, data, size);
    return REAL(pwrite64)(fd, data, size, offset);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    int64_t place = offset;
    for (int n = 0; n < count; place += parts[n++].iov_len) before_fd('w', fd, place, parts[n].iov_base, parts[n].iov_len);
    return REAL(pwritev64)(fd, parts, count, offset);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { return pwritev64(fd, parts, count, offset); }
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags) {
    int64_t place = offset;
    for (int n = 0; n < count; place += parts[n++].iov_len) before_fd('w', fd, place, parts[n].iov_base, parts[n].iov_len);
    return REAL(pwritev64v2)(fd, parts, count, offset, flags);
}
ssize_t write(int fd, const void *data, size_t size) {
    if (*folder) before_fd('w', fd, lseek(fd, 0, SEEK_CUR), data, size);
    return REAL(write)(fd, data, size);
}
int ftruncate64(int fd, off64_t size) {
    before_fd('t', fd, size, 0, 0);
    return REAL(ftruncate64)(fd, size);
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int fsync(int fd) {
    before_fd('s', fd, 0, 0, 0);
    return REAL(fsync)(fd);
}
int fdatasync(int fd) {
    before_fd('s', fd, 0, 0, 0);
    return REAL(fdatasync)(fd);
}
int rename(const char *from, const char *to) {
    before('r', from, to, 0, 0, 0);
    return REAL(rename)(from, to);
}
int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    before('r', from, to, 0, 0, 0);
    return REAL(renameat)(from_fd, from, to_fd, to);
}
int unlink(const char *path) {
    before('u', path, 0, 0, 0, 0);
    return REAL(unlink)(path);
}
int unlinkat(int fd, const char *path, int flags) {
    before('u', path, 0, 0, 0, 0);
    return REAL(unlinkat)(fd, path, flags);
}
