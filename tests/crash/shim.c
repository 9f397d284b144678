/* Calls that change files, counted and cut off: preloaded below Python, so that pyarrow's and safetensors' writes
   are seen too. Only calls on paths below the root given to crash_arm count. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, COUNT, BEFORE, HALF, AFTER, NO_SPACE, IO_ERROR, SHORT };
enum { CREATE = 1, TRUNCATE, WRITE, FLUSH, RENAME, UNLINK, MAKE_FOLDER, LINK, FAILED };

static int mode = OFF;
static long target = -1;
static volatile long counter = 0;
static char root[PATH_MAX];
static size_t root_length = 0;
static int log_fd = -1;
static int waits_for_disk = 0;

/* Whether flushes really reach the disk; by default they only count. */
void crash_wait_for_disk(int whether) { waits_for_disk = whether; }

void crash_arm(const char *folder, int how, long point, int log)
{
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    mode = how, target = point, log_fd = log, counter = 0;
}

long crash_disarm(void)
{
    mode = OFF;
    return counter;
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int is_watched(const char *path)
{
    return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* The absolute path of `path` beside an open folder; an empty one if it cannot be told. */
static void absolute(int folder, const char *path, char *out)
{
    char link[64], base[PATH_MAX];
    ssize_t n;
    out[0] = 0;
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
        return;
    }
    if (folder == AT_FDCWD) {
        if (!getcwd(base, sizeof base)) return;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        if ((n = readlink(link, base, sizeof base - 1)) < 0) return;
        base[n] = 0;
    }
    if (snprintf(out, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) out[0] = 0;
}

static int fd_is_watched(int fd)
{
    char link[64], path[PATH_MAX];
    ssize_t n;
    if (mode == OFF) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if ((n = readlink(link, path, sizeof path - 1)) < 0) return 0;
    path[n] = 0;
    return is_watched(path);
}

/* What to do with this call: 0 = just make it, a mode, or -errno. `grows`: it needs space. */
static int enter(int grows)
{
    long number = __sync_fetch_and_add(&counter, 1);
    if (mode == NO_SPACE) return grows && number >= target ? -ENOSPC : 0;
    if (number != target || mode == COUNT) return 0;
    if (mode == BEFORE) die();
    return mode == IO_ERROR ? -EIO : mode;
}

static long inode_of(const char *path)
{
    struct stat found;
    return fstatat(AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW) ? 0 : (long)found.st_ino;
}

static long folder_of(const char *path, const char **name)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    *name = slash + 1;
    snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
    return inode_of(folder);
}

/* One line of numbers and names, then the bytes of a write. */
static void record(int what, long a, long b, long c, const char *first, const char *second, const void *data, long n)
{
    char head[2 * NAME_MAX + 200];
    int said = errno;
    if (log_fd < 0) return;
    int length = snprintf(head, sizeof head, "%d %ld %ld %ld %ld\t%s\t%s\n", what, a, b, c, n, first, second);
    struct iovec parts[2] = {{head, length}, {(void *)data, n}};
    if (syscall(SYS_writev, log_fd, parts, n ? 2 : 1) < 0) abort();
    errno = said;
}

#define REFUSE(action) if ((action) < 0) return errno = -(action), -1
#define LEAVE(action) if ((action) == HALF || (action) == AFTER) die()

static int opened(int folder, const char *path, int flags, mode_t bits)
{
    char full[PATH_MAX];
    const char *name;
    int action = 0, is_new = 0, cuts = 0;
    if (mode != OFF && flags & (O_CREAT | O_TRUNC)) {
        absolute(folder, path, full);
        if (is_watched(full)) {
            is_new = !inode_of(full), cuts = !is_new && flags & O_TRUNC;
            if (is_new || cuts) {
                action = enter(is_new);
                REFUSE(action);
            }
        }
    }
    int fd = syscall(SYS_openat, folder, path, flags, bits);
    if (is_new) {
        long above = folder_of(full, &name);
        record(fd < 0 ? FAILED : CREATE, above, inode_of(full), 0, name, "", "", 0);
    }
    if (cuts) record(fd < 0 ? FAILED : TRUNCATE, inode_of(full), 0, 0, "", "", "", 0);
    LEAVE(action);
    return fd;
}

#define OPENING(name, ...) int name(__VA_ARGS__, ...) \
{ va_list more; va_start(more, flags); mode_t bits = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; va_end(more);
OPENING(open, const char *path, int flags) return opened(AT_FDCWD, path, flags, bits); }
OPENING(open64, const char *path, int flags) return opened(AT_FDCWD, path, flags, bits); }
OPENING(openat, int folder, const char *path, int flags) return opened(folder, path, flags, bits); }
OPENING(openat64, int folder, const char *path, int flags) return opened(folder, path, flags, bits); }

static ssize_t written(int fd, const void *data, size_t n, off_t at, int positioned)
{
    if (!fd_is_watched(fd)) {
        return positioned ? syscall(SYS_pwrite64, fd, data, n, at) : syscall(SYS_write, fd, data, n);
    }
    struct stat found;
    int action = enter(1);
    REFUSE(action);
    size_t part = (action == HALF || action == SHORT) && n > 1 ? n / 2 : n;
    fstat(fd, &found);
    off_t start = at;
    if (!positioned) start = fcntl(fd, F_GETFL) & O_APPEND ? found.st_size : lseek(fd, 0, SEEK_CUR);
    if (part < n) fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_DIRECT);
    ssize_t done = positioned ? syscall(SYS_pwrite64, fd, data, part, at) : syscall(SYS_write, fd, data, part);
    record(done < 0 ? FAILED : WRITE, (long)found.st_ino, (long)start, 0, "", "", data, done < 0 ? 0 : done);
    LEAVE(action);
    return done;
}

ssize_t write(int fd, const void *data, size_t n) { return written(fd, data, n, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return written(fd, data, n, at, 1); }
ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) { return written(fd, data, n, at, 1); }

/* A vector is written as one part after another may be: short. */
ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (!fd_is_watched(fd)) return syscall(SYS_writev, fd, parts, count);
    for (int i = 0; i < count; i++)
        if (parts[i].iov_len) return written(fd, parts[i].iov_base, parts[i].iov_len, 0, 0);
    return 0;
}

static int flushed(int fd, long call)
{
    struct stat found;
    int action = 0;
    if (fd_is_watched(fd)) {
        action = enter(1);
        REFUSE(action);
        fstat(fd, &found);
        record(FLUSH, (long)found.st_ino, 0, 0, "", "", "", 0);
    } else if (mode == OFF) {
        return syscall(call, fd);
    }
    int failed = waits_for_disk ? syscall(call, fd) : 0;
    LEAVE(action);
    return failed;
}

int fsync(int fd) { return flushed(fd, SYS_fsync); }
int fdatasync(int fd) { return flushed(fd, SYS_fdatasync); }

static int moved(int from, const char *old, int to, const char *new, unsigned flags, int is_link)
{
    char source[PATH_MAX], place[PATH_MAX];
    const char *first = "", *second = "";
    int action = 0, watched = 0;
    long above = 0, below = 0, inode = 0;
    if (mode != OFF) {
        absolute(from, old, source), absolute(to, new, place);
        if ((watched = (is_watched(source) || is_watched(place)) && inode_of(source))) {
            above = folder_of(source, &first), below = folder_of(place, &second), inode = inode_of(source);
            action = enter(1);
            REFUSE(action);
        }
    }
    int failed = is_link ? syscall(SYS_linkat, from, old, to, new, flags) : syscall(SYS_renameat2, from, old, to, new, flags);
    if (watched) record(failed ? FAILED : is_link ? LINK : RENAME, above, below, inode, first, second, "", 0);
    LEAVE(action);
    return failed;
}

int rename(const char *old, const char *new) { return moved(AT_FDCWD, old, AT_FDCWD, new, 0, 0); }
int renameat(int from, const char *old, int to, const char *new) { return moved(from, old, to, new, 0, 0); }
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) { return moved(from, old, to, new, flags, 0); }
int link(const char *old, const char *new) { return moved(AT_FDCWD, old, AT_FDCWD, new, 0, 1); }
int linkat(int from, const char *old, int to, const char *new, int flags) { return moved(from, old, to, new, flags, 1); }

static int removed(int folder, const char *path, int flags)
{
    char full[PATH_MAX];
    const char *name;
    int action = 0, watched = 0;
    long above = 0, inode = 0;
    if (mode != OFF) {
        absolute(folder, path, full);
        if ((watched = is_watched(full) && inode_of(full))) {
            above = folder_of(full, &name), inode = inode_of(full);
            action = enter(0);
            REFUSE(action);
        }
    }
    int failed = syscall(SYS_unlinkat, folder, path, flags);
    if (watched) record(failed ? FAILED : UNLINK, above, inode, 0, name, "", "", 0);
    LEAVE(action);
    return failed;
}

int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int unlinkat(int folder, const char *path, int flags) { return removed(folder, path, flags); }
int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }

static int made(int folder, const char *path, mode_t bits)
{
    char full[PATH_MAX];
    const char *name;
    int action = 0, watched = 0;
    if (mode != OFF) {
        absolute(folder, path, full);
        if ((watched = is_watched(full) && !inode_of(full))) {
            action = enter(1);
            REFUSE(action);
        }
    }
    int failed = syscall(SYS_mkdirat, folder, path, bits);
    if (watched) {
        long above = folder_of(full, &name);
        record(failed ? FAILED : MAKE_FOLDER, above, inode_of(full), 0, name, "", "", 0);
    }
    LEAVE(action);
    return failed;
}

int mkdir(const char *path, mode_t bits) { return made(AT_FDCWD, path, bits); }
int mkdirat(int folder, const char *path, mode_t bits) { return made(folder, path, bits); }

static int cut(int fd, off_t size)
{
    struct stat found;
    int action = 0, watched = fd_is_watched(fd);
    if (watched) {
        fstat(fd, &found);
        action = enter(1);
        REFUSE(action);
    }
    int failed = syscall(SYS_ftruncate, fd, size);
    if (watched) record(failed ? FAILED : TRUNCATE, (long)found.st_ino, (long)size, 0, "", "", "", 0);
    LEAVE(action);
    return failed;
}

int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off_t size) { return cut(fd, size); }

/* Copies inside the kernel show no bytes: callers fall back to reading and writing. */
ssize_t sendfile(int out, int in, off_t *at, size_t n)
{
    if (fd_is_watched(out)) return errno = ENOSYS, -1;
    return syscall(SYS_sendfile, out, in, at, n);
}
ssize_t sendfile64(int out, int in, off_t *at, size_t n) { return sendfile(out, in, at, n); }
ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t n, unsigned flags)
{
    if (fd_is_watched(out)) return errno = ENOSYS, -1;
    return syscall(SYS_copy_file_range, in, from, out, to, n, flags);
}
