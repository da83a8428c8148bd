/*
 * Records what a process does to the files of one directory, and what it says to others meanwhile, in order.
 *
 * Preloaded into a node by the test of crash states, which compiles it. A lock is held over each operation and its
 * record, so the record is one order in which everything did happen. `states/trace.rs` reads it; all integers are the
 * machine's own.
 *
 *   kind u32, fd i32, number i64, length of the first text u32, of the second u32, then both
 *
 * Names: KV_RECORD is the file that is appended to, KV_RECORD_ROOT the directory.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { START, OPEN, WRITE, SYNC, LENGTH, RENAME, UNLINK, MKDIR, SENT };
enum { FDS = 4096, SAID = 600 };

struct head {
    uint32_t kind;
    int32_t fd;
    int64_t number;
    uint32_t one, two;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int record = -1;
static char root[PATH_MAX], parent[PATH_MAX];
static volatile char watched[FDS];

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static void note(uint32_t kind, int fd, int64_t number, const void *one, size_t ones, const void *two, size_t twos) {
    struct head head = {kind, fd, number, (uint32_t)ones, (uint32_t)twos};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)one, ones}, {(void *)two, twos}};
    int kept = errno;
    /* A record that is cut short would make a test pass that tests nothing. */
    if (syscall(SYS_writev, record, parts, 3) != (long)(sizeof head + ones + twos)) abort();
    errno = kept;
}

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("KV_RECORD"), *dir = getenv("KV_RECORD_ROOT");
    if (!file || !dir) return;
    snprintf(root, sizeof root, "%s", dir);
    snprintf(parent, sizeof parent, "%s", dir);
    char *slash = strrchr(parent, '/');
    if (slash) *slash = 0;
    record = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (record < 0) abort();
    note(START, 0, 0, 0, 0, 0, 0);
}

static int ours(const char *path) {
    size_t length = strlen(root);
    if (record < 0) return 0;
    return !strcmp(path, parent) || (!strncmp(path, root, length) && (path[length] == 0 || path[length] == '/'));
}

/* The path of a name in an open directory. */
static const char *resolved(int dir, const char *name, char *path) {
    char link[64];
    if (dir == AT_FDCWD || name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return path;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) length = 0;
    snprintf(path + length, (size_t)(PATH_MAX - length), "/%s", name);
    return path;
}

static int is_file(int fd) {
    struct stat stat;
    return fd >= 0 && fd < FDS && watched[fd] && !fstat(fd, &stat) && (S_ISREG(stat.st_mode) || S_ISDIR(stat.st_mode));
}

static int opened(int fd, int flags) {
    char link[64], path[PATH_MAX];
    if (fd < 0 || fd >= FDS || record < 0) return fd;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    watched[fd] = (char)ours(path);
    if (watched[fd]) note(OPEN, fd, flags, path, strlen(path), 0, 0);
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

#define LOCKED(type, expression) \
    pthread_mutex_lock(&lock); \
    type result = (expression); \
    pthread_mutex_unlock(&lock); \
    return result

static int open_as(int dir, const char *path, int flags, mode_t mode) {
    REAL(int, "openat", int, const char *, int, ...);
    LOCKED(int, opened(real(dir, path, flags, mode), flags));
}

int open(const char *path, int flags, ...) { MODE(flags) return open_as(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_as(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE(flags) return open_as(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags) return open_as(dir, path, flags | O_LARGEFILE, mode); }
int creat(const char *path, mode_t mode) { return open_as(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

static ssize_t wrote(int fd, const struct iovec *parts, int count, off_t at, ssize_t bytes) {
    ssize_t left = bytes;
    for (int part = 0; part < count && left > 0; part++) {
        size_t length = parts[part].iov_len < (size_t)left ? parts[part].iov_len : (size_t)left;
        note(WRITE, fd, at, parts[part].iov_base, length, 0, 0);
        at += (off_t)length;
        left -= (ssize_t)length;
    }
    return bytes;
}

/* What leaves for another process, before it does. */
static void says(int fd, const struct iovec *parts, int count) {
    char text[SAID];
    size_t length = 0;
    struct stat stat;
    if (record < 0 || fstat(fd, &stat) || !S_ISSOCK(stat.st_mode)) return;
    for (int part = 0; part < count && length < SAID; part++) {
        size_t more = parts[part].iov_len < SAID - length ? parts[part].iov_len : SAID - length;
        memcpy(text + length, parts[part].iov_base, more);
        length += more;
    }
    pthread_mutex_lock(&lock);
    note(SENT, fd, 0, text, length, 0, 0);
    pthread_mutex_unlock(&lock);
}

static off_t place(int fd) {
    struct stat stat;
    int flags = fcntl(fd, F_GETFL);
    if (flags & O_APPEND) return fstat(fd, &stat) ? 0 : stat.st_size;
    return lseek(fd, 0, SEEK_CUR);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    if (!is_file(fd)) {
        says(fd, parts, count);
        return real(fd, parts, count);
    }
    pthread_mutex_lock(&lock);
    off_t at = place(fd);
    ssize_t bytes = wrote(fd, parts, count, at, real(fd, parts, count));
    pthread_mutex_unlock(&lock);
    return bytes;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    struct iovec part = {(void *)bytes, length};
    if (!is_file(fd)) {
        says(fd, &part, 1);
        return real(fd, bytes, length);
    }
    pthread_mutex_lock(&lock);
    off_t at = place(fd);
    ssize_t written = wrote(fd, &part, 1, at, real(fd, bytes, length));
    pthread_mutex_unlock(&lock);
    return written;
}

static ssize_t pwrite_as(int fd, const void *bytes, size_t length, off_t at) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    struct iovec part = {(void *)bytes, length};
    if (!is_file(fd)) return real(fd, bytes, length, at);
    LOCKED(ssize_t, wrote(fd, &part, 1, at, real(fd, bytes, length, at)));
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return pwrite_as(fd, bytes, length, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) { return pwrite_as(fd, bytes, length, at); }

static ssize_t pwritev_as(int fd, const struct iovec *parts, int count, off_t at) {
    REAL(ssize_t, "pwritev", int, const struct iovec *, int, off_t);
    if (!is_file(fd)) return real(fd, parts, count, at);
    LOCKED(ssize_t, wrote(fd, parts, count, at, real(fd, parts, count, at)));
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev_as(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return pwritev_as(fd, parts, count, at); }

ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    REAL(ssize_t, "send", int, const void *, size_t, int);
    struct iovec part = {(void *)bytes, length};
    says(fd, &part, 1);
    return real(fd, bytes, length, flags);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    REAL(ssize_t, "sendmsg", int, const struct msghdr *, int);
    says(fd, message->msg_iov, (int)message->msg_iovlen);
    return real(fd, message, flags);
}

static int done(int result, uint32_t kind, int fd, int64_t number) {
    if (!result) note(kind, fd, number, 0, 0, 0, 0);
    return result;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    if (!is_file(fd)) return real(fd);
    LOCKED(int, done(real(fd), SYNC, fd, 0));
}
int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    if (!is_file(fd)) return real(fd);
    LOCKED(int, done(real(fd), SYNC, fd, 0));
}

static int truncate_as(int fd, off_t length) {
    REAL(int, "ftruncate", int, off_t);
    if (!is_file(fd)) return real(fd, length);
    LOCKED(int, done(real(fd, length), LENGTH, fd, length));
}
int ftruncate(int fd, off_t length) { return truncate_as(fd, length); }
int ftruncate64(int fd, off64_t length) { return truncate_as(fd, length); }

static int named(int result, uint32_t kind, int dir, const char *one, int dir_two, const char *two) {
    char first[PATH_MAX], second[PATH_MAX];
    resolved(dir, one, first);
    second[0] = 0;
    if (two) resolved(dir_two, two, second);
    if (!result && (ours(first) || ours(second))) note(kind, 0, 0, first, strlen(first), second, strlen(second));
    return result;
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    LOCKED(int, named(real(from, to), RENAME, AT_FDCWD, from, AT_FDCWD, to));
}
int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    LOCKED(int, named(real(path), UNLINK, AT_FDCWD, path, 0, 0));
}
int rmdir(const char *path) {
    REAL(int, "rmdir", const char *);
    LOCKED(int, named(real(path), UNLINK, AT_FDCWD, path, 0, 0));
}
int unlinkat(int dir, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    LOCKED(int, named(real(dir, path, flags), UNLINK, dir, path, 0, 0));
}
int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    LOCKED(int, named(real(path, mode), MKDIR, AT_FDCWD, path, 0, 0));
}
