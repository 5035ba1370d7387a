/* Makes system calls fail for files whose path contains $FAIL_PATH, with error $FAIL_ERRNO. The
 * first $FAIL_TIMES calls fail, all of them if it is not set. $FAIL_CALL is "read" (the default),
 * "open", "list" (of a folder) or "stat". Loaded with LD_PRELOAD, so that Python, HDF5 and every
 * other library meet the error of a real disk.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int failed = 0;

static int matches(const char *path) {
    const char *part = getenv("FAIL_PATH");
    return part != NULL && path != NULL && strstr(path, part) != NULL;
}

static int fails(const char *call, const char *path) {
    const char *wanted = getenv("FAIL_CALL"), *times = getenv("FAIL_TIMES");
    if (!matches(path) || strcmp(call, wanted ? wanted : "read") != 0) return 0;
    if (times != NULL && failed >= atoi(times)) return 0;
    failed++;
    errno = atoi(getenv("FAIL_ERRNO"));
    return 1;
}

static int fails_at(int fd) {
    char link[64], path[4096];
    if (getenv("FAIL_PATH") == NULL) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails("read", path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t read(int fd, void *buffer, size_t count) {
    return fails_at(fd) ? -1 : REAL(read)(fd, buffer, count);
}

ssize_t pread(int fd, void *buffer, size_t count, off_t offset) {
    return fails_at(fd) ? -1 : REAL(pread)(fd, buffer, count, offset);
}

ssize_t pread64(int fd, void *buffer, size_t count, off64_t offset) {
    return fails_at(fd) ? -1 : REAL(pread64)(fd, buffer, count, offset);
}

#define OPEN(name, type)                                                     \
    int name(const char *path, int flags, ...) {                             \
        va_list list;                                                        \
        va_start(list, flags);                                               \
        int mode = va_arg(list, int);                                        \
        va_end(list);                                                        \
        return fails("open", path) ? -1 : REAL(name)(path, flags, mode);     \
    }

OPEN(open, int)
OPEN(open64, int)

DIR *opendir(const char *path) {
    return fails("list", path) ? NULL : REAL(opendir)(path);
}

int stat(const char *path, struct stat *result) {
    return fails("stat", path) ? -1 : REAL(stat)(path, result);
}

int stat64(const char *path, struct stat64 *result) {
    return fails("stat", path) ? -1 : REAL(stat64)(path, result);
}
