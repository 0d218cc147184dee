/* Ends a process before its k-th change to the disk under a folder, as a loss of power would.

   Load it with LD_PRELOAD and call crash_begin(). A change is a write, a sync of a file or folder,
   a new name, a changed or a removed one. What was written and not synced by then loses its second
   half, which is what a disk may do to it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define DIRTY 4096

static int changes, crash_at;
static const char *under;
static struct { int handle; dev_t device; ino_t inode; } dirty[DIRTY];
static int n_dirty;

#define NEXT(name) \
    static __typeof__(name) *next; \
    if (!next) next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* Changes under a folder count from now on; the process ends before the k-th (0: never). */
void crash_begin(const char *folder, int k) {
    under = strdup(folder);
    changes = 0;
    crash_at = k;
}

int crash_changes(void) { return changes; }

static int is_ours(const char *path) {
    char whole[PATH_MAX * 2];
    if (!under || !path) return 0;
    if (path[0] == '/') return strncmp(path, under, strlen(under)) == 0;
    if (!getcwd(whole, PATH_MAX)) return 0;
    strcat(whole, "/");
    return strncmp(strncat(whole, path, PATH_MAX - 1), under, strlen(under)) == 0;
}

static int named(int handle, const char *path, char *whole) {
    char link[64];
    if (path && (path[0] == '/' || handle == AT_FDCWD)) return snprintf(whole, PATH_MAX, "%s", path);
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, whole, PATH_MAX - 1);
    if (length < 0) return -1;
    whole[length] = 0;
    if (path) snprintf(whole + length, PATH_MAX - length, "/%s", path);
    return 0;
}

/* What is not synced loses its second half. */
void crash_now(void) {
    for (int n = 0; n < n_dirty; n++) {
        struct stat about;
        if (fstat(dirty[n].handle, &about) == 0) {
            int kept = about.st_size / 2;
            syscall(SYS_ftruncate, dirty[n].handle, kept);
        }
    }
}

static void change(const char *path) {
    if (!is_ours(path)) return;
    changes++;
    if (changes == crash_at) {
        crash_now();
        _exit(86);
    }
}

static void change_at(int handle, const char *path) {
    char whole[PATH_MAX];
    int error = errno;
    if (named(handle, path, whole) >= 0) change(whole);
    errno = error;
}

/* Remember what is written, by a handle of its own: the file may be closed and renamed meanwhile. */
static void soil(int handle) {
    struct stat about;
    char whole[PATH_MAX], link[64];
    int error = errno;
    if (!under || named(handle, NULL, whole) < 0 || !is_ours(whole)) goto done;
    if (fstat(handle, &about) || !S_ISREG(about.st_mode)) goto done;
    for (int n = 0; n < n_dirty; n++)
        if (dirty[n].device == about.st_dev && dirty[n].inode == about.st_ino) goto done;
    if (n_dirty == DIRTY) abort();
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    dirty[n_dirty].handle = syscall(SYS_openat, AT_FDCWD, link, O_RDWR | O_CLOEXEC, 0);
    dirty[n_dirty].device = about.st_dev;
    dirty[n_dirty++].inode = about.st_ino;
done:
    errno = error;
}

static void clean(int handle) {
    struct stat about;
    if (fstat(handle, &about)) return;
    for (int n = 0; n < n_dirty; n++)
        if (dirty[n].device == about.st_dev && dirty[n].inode == about.st_ino) {
            syscall(SYS_close, dirty[n].handle);
            dirty[n] = dirty[--n_dirty];
            return;
        }
}

ssize_t write(int handle, const void *data, size_t size) {
    NEXT(write);
    change_at(handle, NULL);
    soil(handle);
    return next(handle, data, size);
}

ssize_t pwrite64(int handle, const void *data, size_t size, off64_t at) {
    NEXT(pwrite64);
    change_at(handle, NULL);
    soil(handle);
    return next(handle, data, size, at);
}

ssize_t writev(int handle, const struct iovec *parts, int count) {
    NEXT(writev);
    change_at(handle, NULL);
    soil(handle);
    return next(handle, parts, count);
}

ssize_t sendfile64(int to, int from, off64_t *at, size_t size) {
    NEXT(sendfile64);
    change_at(to, NULL);
    soil(to);
    return next(to, from, at, size);
}

ssize_t sendfile(int to, int from, off_t *at, size_t size) {
    NEXT(sendfile);
    change_at(to, NULL);
    soil(to);
    return next(to, from, at, size);
}

ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags) {
    NEXT(copy_file_range);
    change_at(to, NULL);
    soil(to);
    return next(from, a, to, b, size, flags);
}

int ftruncate64(int handle, off64_t size) {
    NEXT(ftruncate64);
    change_at(handle, NULL);
    soil(handle);
    return next(handle, size);
}

int fsync(int handle) {
    NEXT(fsync);
    change_at(handle, NULL);
    int done = next(handle);
    clean(handle);
    return done;
}

int fdatasync(int handle) {
    NEXT(fdatasync);
    change_at(handle, NULL);
    int done = next(handle);
    clean(handle);
    return done;
}

int rename(const char *from, const char *to) {
    NEXT(rename);
    change(to);
    return next(from, to);
}

int renameat(int a, const char *from, int b, const char *to) {
    NEXT(renameat);
    change_at(b, to);
    return next(a, from, b, to);
}

int unlink(const char *path) {
    NEXT(unlink);
    change(path);
    return next(path);
}

int unlinkat(int handle, const char *path, int flags) {
    NEXT(unlinkat);
    change_at(handle, path);
    return next(handle, path, flags);
}

int rmdir(const char *path) {
    NEXT(rmdir);
    change(path);
    return next(path);
}

int mkdir(const char *path, mode_t mode) {
    NEXT(mkdir);
    change(path);
    return next(path, mode);
}

int link(const char *from, const char *to) {
    NEXT(link);
    change(to);
    return next(from, to);
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
    NEXT(linkat);
    change_at(b, to);
    return next(a, from, b, to, flags);
}

static int opened(int handle, const char *path, int flags, mode_t mode) {
    if (flags & (O_CREAT | O_TRUNC)) change_at(handle, path);
    int made = syscall(SYS_openat, handle, path, flags, mode);
    if (made >= 0 && flags & O_TRUNC) soil(made);
    return made;
}

#define OPEN(name, ...) \
    int name(__VA_ARGS__ const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);

OPEN(open, ) return opened(AT_FDCWD, path, flags, mode); }
OPEN(open64, ) return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
OPEN(openat, int handle,) return opened(handle, path, flags, mode); }
OPEN(openat64, int handle,) return opened(handle, path, flags | O_LARGEFILE, mode); }
