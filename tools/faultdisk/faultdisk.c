/* A disk that fails when it is told to, for tests.
 *
 * Loaded into a process by LD_PRELOAD. It stands between SQLite and the kernel for the files of one database (itself,
 * its log, its index of the log and its journal) and lets everything else pass.
 *
 *   FAULTDISK_STORE    the database file
 *   FAULTDISK_CONTROL  a file whose first word is the fault in force; it is read again at every call:
 *
 *   none               nothing
 *   full               no room: a write goes on until less than 512 bytes are left of it, then ENOSPC
 *   readonly           EROFS on writes, on cutting, and on opening for writing
 *   write-eio          EIO on writes
 *   fsync-eio          EIO on fsync, after the data went to the kernel
 *   fsync-slow MS      fsync takes MS milliseconds longer, or as long as the fault is in force
 *   read-eio           EIO on reads
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FDS_MAX 65536

static const char *store;
static int control = -1;
static volatile char is_store[FDS_MAX];

struct fault {
    char name[32];
    long number;
};

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTDISK_CONTROL");
    store = getenv("FAULTDISK_STORE");
    if (path != NULL && store != NULL) control = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
}

static struct fault in_force(void) {
    struct fault fault = {"none", 0};
    char text[64] = {0};
    if (syscall(SYS_pread64, control, text, sizeof text - 1, 0L) > 0) sscanf(text, "%31s %ld", fault.name, &fault.number);
    return fault;
}

static int meets(int fd, const char *name) {
    return fd >= 0 && fd < FDS_MAX && is_store[fd] && strcmp(in_force().name, name) == 0;
}

static int is_file_of_store(const char *path) {
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    size_t length = store == NULL || control < 0 ? 0 : strlen(store);
    if (length == 0 || strncmp(path, store, length) != 0) return 0;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        if (strcmp(path + length, suffixes[i]) == 0) return 1;
    }
    return 0;
}

static int fails(int number) {
    errno = number;
    return -1;
}

static int open_file(const char *path, int flags, mode_t mode) {
    int ours = is_file_of_store(path);
    if (ours && (flags & O_ACCMODE) != O_RDONLY && strcmp(in_force().name, "readonly") == 0) return fails(EROFS);
    int fd = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && fd < FDS_MAX) is_store[fd] = ours;
    return fd;
}

#define OPEN(NAME)                                                       \
    int NAME(const char *path, int flags, ...) {                         \
        va_list rest;                                                    \
        va_start(rest, flags);                                           \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                    \
        return open_file(path, flags, mode);                             \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    if (fd >= 0 && fd < FDS_MAX) is_store[fd] = 0;
    return syscall(SYS_close, fd);
}

/* How much of a write goes out: all of it, or what a fault leaves. */
static ssize_t room(int fd, size_t count) {
    if (meets(fd, "full")) return count > 512 ? (ssize_t)(count / 2) : fails(ENOSPC);
    if (meets(fd, "readonly")) return fails(EROFS);
    if (meets(fd, "write-eio")) return fails(EIO);
    return count;
}

ssize_t write(int fd, const void *data, size_t count) {
    ssize_t length = room(fd, count);
    return length < 0 ? -1 : syscall(SYS_write, fd, data, length);
}

#define PWRITE(NAME)                                                     \
    ssize_t NAME(int fd, const void *data, size_t count, off_t offset) { \
        ssize_t length = room(fd, count);                                \
        return length < 0 ? -1 : syscall(SYS_pwrite64, fd, data, length, offset); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t read(int fd, void *data, size_t count) {
    return meets(fd, "read-eio") ? fails(EIO) : syscall(SYS_read, fd, data, count);
}

#define PREAD(NAME)                                                      \
    ssize_t NAME(int fd, void *data, size_t count, off_t offset) {       \
        return meets(fd, "read-eio") ? fails(EIO) : syscall(SYS_pread64, fd, data, count, offset); \
    }
PREAD(pread)
PREAD(pread64)

#define CUT(NAME)                                                        \
    int NAME(int fd, off_t length) {                                     \
        return meets(fd, "readonly") ? fails(EROFS) : syscall(SYS_ftruncate, fd, length); \
    }
CUT(ftruncate)
CUT(ftruncate64)

static int sync_file(int fd, long call) {
    const struct timespec moment = {0, 10000000};
    for (long waited = 0; meets(fd, "fsync-slow") && waited < in_force().number; waited += 10) nanosleep(&moment, NULL);
    return meets(fd, "fsync-eio") ? fails(EIO) : syscall(call, fd);
}

int fsync(int fd) { return sync_file(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_file(fd, SYS_fdatasync); }
