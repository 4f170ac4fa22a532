/* LD_PRELOAD: writes down, in order, what a process does to the files below $RECORD_ROOT, with the bytes, into $RECORD_LOG.
 *
 * Record: u8 kind, u64 inode, u64 offset or length, u32 path length, u32 data length (little-endian), path, data.
 * Kinds: C created, W written, T truncated to, S synced, R renamed (path to data), U unlinked, M directory made.
 * Only what succeeded is written down. Memory maps are not seen: SQLite maps its -shm file, whose content it never needs again.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *root(void) { return getenv("RECORD_ROOT"); }

static int below(const char *path) {
    const char *folder = root();
    return folder != NULL && path != NULL && strncmp(path, folder, strlen(folder)) == 0;
}

static int path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return below(path);
}

static void note(char kind, uint64_t inode, uint64_t number, const char *path, const void *data, uint32_t length) {
    static int log_fd = -1;
    uint32_t path_length = (uint32_t)strlen(path);
    unsigned char head[25];
    if (log_fd < 0) {
        int (*real)(const char *, int, ...) = REAL(open);
        log_fd = real(getenv("RECORD_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    }
    head[0] = (unsigned char)kind;
    memcpy(head + 1, &inode, 8);
    memcpy(head + 9, &number, 8);
    memcpy(head + 17, &path_length, 4);
    memcpy(head + 21, &length, 4);
    ssize_t (*real)(int, const void *, size_t) = REAL(write);
    if (real(log_fd, head, sizeof head) < 0 || real(log_fd, path, path_length) < 0 || real(log_fd, data, length) < 0) abort();
}

static uint64_t inode_of(int fd) {
    struct stat about;
    return fstat(fd, &about) == 0 ? about.st_ino : 0;
}

static void note_fd(char kind, int fd, uint64_t number, const void *data, uint32_t length) {
    char path[4096];
    if (path_of(fd, path, sizeof path)) note(kind, inode_of(fd), number, path, data, length);
}

static int opened(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    struct stat about;
    pthread_mutex_lock(&lock);
    int is_new = below(path) && (flags & O_CREAT) && stat(path, &about) != 0;
    int fd = real(path, flags, mode);
    if (fd >= 0 && is_new) note_fd('C', fd, 0, "", 0);
    else if (fd >= 0 && (flags & O_TRUNC)) note_fd('T', fd, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
        return opened(REAL(name), path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *data, size_t length) {
    pthread_mutex_lock(&lock);
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t done = REAL(write)(fd, data, length);
    if (done > 0 && offset >= 0) note_fd('W', fd, (uint64_t)offset, data, (uint32_t)done);
    pthread_mutex_unlock(&lock);
    return done;
}

#define PWRITE(name, offset_type) \
    ssize_t name(int fd, const void *data, size_t length, offset_type offset) { \
        pthread_mutex_lock(&lock); \
        ssize_t done = REAL(name)(fd, data, length, offset); \
        if (done > 0) note_fd('W', fd, (uint64_t)offset, data, (uint32_t)done); \
        pthread_mutex_unlock(&lock); \
        return done; \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define ON_FD(name, arguments, call, kind, number) \
    int name arguments { \
        pthread_mutex_lock(&lock); \
        int result = REAL(name) call; \
        if (result == 0) note_fd(kind, fd, (uint64_t)(number), "", 0); \
        pthread_mutex_unlock(&lock); \
        return result; \
    }
ON_FD(fsync, (int fd), (fd), 'S', 0)
ON_FD(fdatasync, (int fd), (fd), 'S', 0)
ON_FD(ftruncate, (int fd, off_t length), (fd, length), 'T', length)
ON_FD(ftruncate64, (int fd, off64_t length), (fd, length), 'T', length)

int rename(const char *before, const char *after) {
    pthread_mutex_lock(&lock);
    int result = REAL(rename)(before, after);
    if (result == 0 && below(before)) note('R', 0, 0, before, after, (uint32_t)strlen(after));
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    int result = REAL(unlink)(path);
    if (result == 0 && below(path)) note('U', 0, 0, path, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int mkdir(const char *path, mode_t mode) {
    pthread_mutex_lock(&lock);
    int result = REAL(mkdir)(path, mode);
    if (result == 0 && below(path)) note('M', 0, 0, path, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}
