// Power loss under libc: a library to preload, which writes down every change to the files below one folder
// and every sync of them. After SIGKILL, benches/src/powerloss.rs reads the journal and makes the folder
// into what a disk could hold had the power gone in that moment. (SIGKILL itself loses nothing: the page
// cache stays.) What is modelled and what is not stands in that file.
//
//   HOLDFAST_POWERLOSS_ROOT     the folder; absolute, without symbolic links
//   HOLDFAST_POWERLOSS_JOURNAL  the journal, outside that folder; appended to
//   HOLDFAST_SYNC_COUNT         a file of at least 8 bytes that counts fsync and fdatasync, of any file;
//                               alone, or with the two above
//
// A change is recorded right after it was made, under one lock with it, so the journal's order is the true
// one, and a record can be missing only for the call that was in the air at the kill. The start of a sync is
// recorded before it and its end after it: what lay before the start is safe once the end was recorded.
//
// Every call is made with syscall(2): nothing to look up, and no call of ours comes back to us.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind {
    OPEN = 1, CREATE, WRITE, TRUNCATE, GROW, SYNC_BEGIN, SYNC_END,
    RENAME, UNLINK, RMDIR, MKDIR, LINK, UNMODELLED,
};
enum { TRACKED = 1, APPEND = 2, SYNCED = 4 };
enum { FDS = 1 << 16, MAGIC = 0x314c5048, LAST_FD = 900 };

struct record {
    uint32_t magic, kind;
    uint64_t inode; // 0 in SYNC_BEGIN and SYNC_END: every file
    uint64_t at;    // offset, size, or the number of the sync
    uint32_t first, second; // lengths of what follows
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length; // 0 means that nothing is watched
static int journal = -1;
static uint64_t syncs_begun;
static _Atomic uint64_t *sync_count;
static _Atomic unsigned char state[FDS];
static uint64_t inodes[FDS];

static _Noreturn void stop(const char *why) {
    dprintf(2, "powerloss shim: %s: %s\n", why, strerror(errno));
    _exit(97);
}

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("HOLDFAST_POWERLOSS_ROOT"), *path = getenv("HOLDFAST_POWERLOSS_JOURNAL");
    const char *count = getenv("HOLDFAST_SYNC_COUNT");
    if (count) {
        int fd = syscall(SYS_openat, AT_FDCWD, count, O_RDWR | O_CLOEXEC);
        if (fd < 0) stop("HOLDFAST_SYNC_COUNT");
        void *page = (void *)syscall(SYS_mmap, NULL, sizeof *sync_count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (page == MAP_FAILED) stop("HOLDFAST_SYNC_COUNT");
        sync_count = page;
        syscall(SYS_close, fd);
    }
    if (!folder || !path) return;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) stop("HOLDFAST_POWERLOSS_JOURNAL");
    // Out of the way of programs that expect the low numbers.
    journal = syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, LAST_FD);
    if (journal < 0) stop("HOLDFAST_POWERLOSS_JOURNAL");
    syscall(SYS_close, fd);
    if (strlen(folder) >= sizeof root) stop("HOLDFAST_POWERLOSS_ROOT");
    strcpy(root, folder);
    root_length = strlen(root);
}

// --- Records: with the lock held ----------------------------------------------------------------------

static void put(const void *bytes, size_t length) {
    for (const char *next = bytes; length;) {
        ssize_t n = syscall(SYS_write, journal, next, length);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) stop("the journal");
        next += n;
        length -= n;
    }
}

static void record(enum kind kind, uint64_t inode, uint64_t at, const char *first, const char *second) {
    struct record header = {MAGIC, kind, inode, at, first ? strlen(first) : 0, second ? strlen(second) : 0};
    int keep = errno;
    char whole[sizeof header + 2 * PATH_MAX];
    memcpy(whole, &header, sizeof header);
    if (first) memcpy(whole + sizeof header, first, header.first);
    if (second) memcpy(whole + sizeof header + header.first, second, header.second);
    put(whole, sizeof header + header.first + header.second);
    errno = keep;
}

static void record_write(uint64_t inode, uint64_t at, const struct iovec *parts, int count, size_t length) {
    struct record header = {MAGIC, WRITE, inode, at, length, 0};
    put(&header, sizeof header);
    for (int i = 0; i < count && length; i++) {
        size_t n = parts[i].iov_len < length ? parts[i].iov_len : length;
        put(parts[i].iov_base, n);
        length -= n;
    }
}

static void record_synced(uint64_t inode) {
    record(SYNC_BEGIN, inode, ++syncs_begun, NULL, NULL);
    record(SYNC_END, inode, syncs_begun, NULL, NULL);
}

// --- Paths --------------------------------------------------------------------------------------------

// Writes the absolute form of `path` into `whole`; says which part lies below the root, NULL if none does.
static const char *below_root(int folder, const char *path, char whole[PATH_MAX]) {
    if (!root_length || !path) return NULL;
    size_t length = 0;
    if (path[0] != '/') {
        ssize_t n;
        if (folder == AT_FDCWD) {
            n = syscall(SYS_getcwd, whole, PATH_MAX) - 1;
        } else {
            char link[40];
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            n = syscall(SYS_readlinkat, AT_FDCWD, link, whole, PATH_MAX - 1);
        }
        if (n <= 0) return NULL;
        length = whole[0] == '/' && n == 1 ? 0 : n;
    }
    while (*path) {
        size_t n = strcspn(path, "/");
        if (n == 2 && !memcmp(path, "..", 2)) {
            while (length && whole[--length] != '/') {}
        } else if (n && !(n == 1 && *path == '.')) {
            if (length + n + 2 > PATH_MAX) return NULL;
            whole[length++] = '/';
            memcpy(whole + length, path, n);
            length += n;
        }
        path += n + (path[n] == '/');
    }
    whole[length] = 0;
    if (length < root_length || memcmp(whole, root, root_length)) return NULL;
    if (length == root_length) return whole + length;
    return whole[root_length] == '/' ? whole + root_length + 1 : NULL;
}

// What is known of a descriptor; nothing once its number belongs to something else. fclose and closedir
// close their descriptor inside libc, where nobody sees it.
static unsigned char state_of(int fd) {
    struct stat now;
    if (fd < 0 || fd >= FDS || !state[fd]) return 0;
    int keep = errno;
    int same = fstat(fd, &now) == 0 && now.st_ino == inodes[fd] && (S_ISREG(now.st_mode) || S_ISDIR(now.st_mode));
    errno = keep;
    if (!same) state[fd] = 0;
    return state[fd];
}

// --- Opening and closing ------------------------------------------------------------------------------

static int open_at(int folder, const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX];
    const char *name = below_root(folder, path, whole);
    if (!name) return syscall(SYS_openat, folder, path, flags, mode);
    struct stat before, now;
    pthread_mutex_lock(&lock);
    int existed = fstatat(AT_FDCWD, whole, &before, AT_SYMLINK_NOFOLLOW) == 0;
    int fd = syscall(SYS_openat, folder, path, flags, mode);
    if (fd >= 0) {
        if (fstat(fd, &now) || fd >= FDS) stop("a file that cannot be followed");
        if ((flags & O_TMPFILE) == O_TMPFILE || (existed && S_ISLNK(before.st_mode)))
            record(UNMODELLED, 0, 0, "an unnamed file or a symbolic link", name);
        record(existed ? OPEN : CREATE, now.st_ino, 0, name, NULL);
        if (existed && (flags & O_TRUNC) && before.st_size) record(TRUNCATE, now.st_ino, 0, NULL, NULL);
        inodes[fd] = now.st_ino;
        state[fd] = TRACKED | (flags & O_APPEND ? APPEND : 0) | (flags & (O_DSYNC | O_SYNC) ? SYNCED : 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

static mode_t mode_of(int flags, va_list list) {
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0;
}

#define OPENER(name, prototype, last, folder)                                                              \
    int name prototype {                                                                                   \
        va_list list;                                                                                      \
        va_start(list, last);                                                                              \
        mode_t mode = mode_of(flags, list);                                                                \
        va_end(list);                                                                                      \
        return open_at(folder, path, flags, mode);                                                         \
    }
OPENER(open, (const char *path, int flags, ...), flags, AT_FDCWD)
OPENER(open64, (const char *path, int flags, ...), flags, AT_FDCWD)
OPENER(openat, (int folder, const char *path, int flags, ...), flags, folder)
OPENER(openat64, (int folder, const char *path, int flags, ...), flags, folder)
int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __openat_2(int folder, const char *path, int flags) { return open_at(folder, path, flags, 0); }
int __openat64_2(int folder, const char *path, int flags) { return open_at(folder, path, flags, 0); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

static void forget(int fd) {
    pthread_mutex_lock(&lock);
    state[fd] = 0;
    pthread_mutex_unlock(&lock);
}

int close(int fd) {
    // Before the number is free for another thread's file.
    if (fd >= 0 && fd < FDS && state[fd]) forget(fd);
    return syscall(SYS_close, fd);
}

int close_range(unsigned first, unsigned last, int flags) {
    for (unsigned fd = first; fd <= last && fd < FDS; fd++)
        if (state[fd] && !flags) forget(fd);
    return syscall(SYS_close_range, first, last, flags);
}

static int copied(int from, int to) {
    if (to < 0 || to == from || !state_of(from)) return to;
    if (to >= FDS) stop("a file that cannot be followed");
    pthread_mutex_lock(&lock);
    inodes[to] = inodes[from];
    state[to] = state[from];
    pthread_mutex_unlock(&lock);
    return to;
}

int dup(int fd) { return copied(fd, syscall(SYS_dup, fd)); }
int dup3(int fd, int to, int flags) { return copied(fd, syscall(SYS_dup3, fd, to, flags)); }
int dup2(int fd, int to) { return fd == to ? (int)syscall(SYS_fcntl, fd, F_GETFL) < 0 ? -1 : to : dup3(fd, to, 0); }

static int control(int fd, int command, void *argument) {
    int result = syscall(SYS_fcntl, fd, command, argument);
    if (result >= 0 && state_of(fd)) {
        if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) return copied(fd, result);
        if (command == F_SETFL) state[fd] = (state[fd] & ~APPEND) | ((intptr_t)argument & O_APPEND ? APPEND : 0);
    }
    return result;
}

int fcntl(int fd, int command, ...) {
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    return control(fd, command, argument);
}

int fcntl64(int fd, int command, ...) {
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    return control(fd, command, argument);
}

// --- Data ---------------------------------------------------------------------------------------------

// `at` is -1 for the file's own position.
static ssize_t write_at(int fd, const struct iovec *parts, int count, off_t at) {
    struct stat now;
    pthread_mutex_lock(&lock);
    off_t start = at;
    if (state[fd] & APPEND) {
        if (fstat(fd, &now)) stop("a file that cannot be followed");
        start = now.st_size;
    } else if (at < 0) {
        start = syscall(SYS_lseek, fd, 0, SEEK_CUR);
    }
    ssize_t n = at < 0 ? syscall(SYS_writev, fd, parts, count) : syscall(SYS_pwritev, fd, parts, count, at, 0);
    if (n > 0) {
        record_write(inodes[fd], start, parts, count, n);
        if (state[fd] & SYNCED) record_synced(inodes[fd]);
    }
    pthread_mutex_unlock(&lock);
    return n;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    if (!state_of(fd)) return syscall(SYS_write, fd, bytes, length);
    return write_at(fd, &(struct iovec){(void *)bytes, length}, 1, -1);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return state_of(fd) ? write_at(fd, parts, count, -1) : syscall(SYS_writev, fd, parts, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    if (!state_of(fd)) return syscall(SYS_pwrite64, fd, bytes, length, at);
    return write_at(fd, &(struct iovec){(void *)bytes, length}, 1, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) { return pwrite(fd, bytes, length, at); }

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    return state_of(fd) ? write_at(fd, parts, count, at) : syscall(SYS_pwritev, fd, parts, count, at, 0);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) { return pwritev(fd, parts, count, at); }

ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    // Its callers know that old kernels do not have it.
    if (state_of(fd)) return errno = EOPNOTSUPP, -1;
    return syscall(SYS_pwritev2, fd, parts, count, at, 0, flags);
}
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    return pwritev2(fd, parts, count, at, flags);
}

ssize_t copy_file_range(int from, off_t *start, int to, off_t *at, size_t length, unsigned flags) {
    // Its callers fall back to reading and writing.
    if (state_of(to)) return errno = EXDEV, -1;
    return syscall(SYS_copy_file_range, from, start, to, at, length, flags);
}

ssize_t sendfile(int to, int from, off_t *start, size_t length) {
    if (state_of(to)) return errno = EINVAL, -1;
    return syscall(SYS_sendfile, to, from, start, length);
}
ssize_t sendfile64(int to, int from, off_t *start, size_t length) { return sendfile(to, from, start, length); }

int ftruncate(int fd, off_t size) {
    if (!state_of(fd)) return syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_ftruncate, fd, size);
    if (!result) record(TRUNCATE, inodes[fd], size, NULL, NULL);
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

int truncate(const char *path, off_t size) {
    int fd = open_at(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    int result = ftruncate(fd, size), keep = errno;
    close(fd);
    errno = keep;
    return result;
}
int truncate64(const char *path, off_t size) { return truncate(path, size); }

static int allocate(int fd, int mode, off_t at, off_t length) {
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_fallocate, fd, mode, at, length);
    if (!result && mode == 0) record(GROW, inodes[fd], at + length, NULL, NULL);
    if (!result && mode == (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)) {
        struct stat now;
        // Room beyond the end is given back: nothing that can be read changes.
        if (fstat(fd, &now) || at < now.st_size) record(UNMODELLED, 0, 0, "a hole in the middle of a file", NULL);
    } else if (!result && mode != 0 && mode != FALLOC_FL_KEEP_SIZE) {
        record(UNMODELLED, 0, 0, "an odd fallocate", NULL);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int fallocate(int fd, int mode, off_t at, off_t length) {
    return state_of(fd) ? allocate(fd, mode, at, length) : (int)syscall(SYS_fallocate, fd, mode, at, length);
}
int fallocate64(int fd, int mode, off_t at, off_t length) { return fallocate(fd, mode, at, length); }
int posix_fallocate(int fd, off_t at, off_t length) { return fallocate(fd, 0, at, length) ? errno : 0; }
int posix_fallocate64(int fd, off_t at, off_t length) { return posix_fallocate(fd, at, length); }

void *mmap(void *where, size_t length, int protection, int flags, int fd, off_t at) {
    if (state_of(fd) && (protection & PROT_WRITE) && (flags & MAP_TYPE) != MAP_PRIVATE && !(flags & MAP_ANONYMOUS)) {
        pthread_mutex_lock(&lock);
        record(UNMODELLED, 0, 0, "a shared writable mapping", NULL);
        pthread_mutex_unlock(&lock);
    }
    return (void *)syscall(SYS_mmap, where, length, protection, flags, fd, at);
}
void *mmap64(void *where, size_t length, int protection, int flags, int fd, off_t at) {
    return mmap(where, length, protection, flags, fd, at);
}

// --- Syncs --------------------------------------------------------------------------------------------

static int synced(long call, int fd, int everything) {
    if (sync_count) (*sync_count)++;
    if (!everything && !state_of(fd)) return syscall(call, fd);
    if (!root_length) return syscall(call, fd);
    pthread_mutex_lock(&lock);
    uint64_t number = ++syncs_begun, inode = everything ? 0 : inodes[fd];
    record(SYNC_BEGIN, inode, number, NULL, NULL);
    pthread_mutex_unlock(&lock);
    int result = syscall(call, fd);
    if (result) return result;
    pthread_mutex_lock(&lock);
    record(SYNC_END, inode, number, NULL, NULL);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return synced(SYS_fsync, fd, 0); }
int fdatasync(int fd) { return synced(SYS_fdatasync, fd, 0); }
int syncfs(int fd) { return synced(SYS_syncfs, fd, 1); }
void sync(void) { synced(SYS_sync, 0, 1); }
// sync_file_range is left alone: it promises nothing.

// --- Names --------------------------------------------------------------------------------------------

static int named(long result, enum kind kind, const char *first, const char *second) {
    if (!result) record(kind, 0, 0, first, second);
    pthread_mutex_unlock(&lock);
    return result;
}

static int two_names(enum kind kind, int from, const char *old, int to, const char *new, int flags) {
    char first[PATH_MAX], second[PATH_MAX];
    const char *a = below_root(from, old, first), *b = below_root(to, new, second);
    long call = kind == RENAME ? SYS_renameat2 : SYS_linkat;
    if (!a && !b) return syscall(call, from, old, to, new, flags);
    pthread_mutex_lock(&lock);
    long result = syscall(call, from, old, to, new, flags);
    if (a && b && (kind == LINK || !(flags & ~RENAME_NOREPLACE))) return named(result, kind, a, b);
    return named(result, UNMODELLED, "a name into the folder, out of it, or exchanged", a ? a : b);
}

int rename(const char *old, const char *new) { return two_names(RENAME, AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int from, const char *old, int to, const char *new) { return two_names(RENAME, from, old, to, new, 0); }
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    return two_names(RENAME, from, old, to, new, flags);
}
int link(const char *old, const char *new) { return two_names(LINK, AT_FDCWD, old, AT_FDCWD, new, 0); }
int linkat(int from, const char *old, int to, const char *new, int flags) {
    return two_names(LINK, from, old, to, new, flags);
}

int unlinkat(int folder, const char *path, int flags) {
    char whole[PATH_MAX];
    const char *name = below_root(folder, path, whole);
    if (!name) return syscall(SYS_unlinkat, folder, path, flags);
    pthread_mutex_lock(&lock);
    return named(syscall(SYS_unlinkat, folder, path, flags), flags & AT_REMOVEDIR ? RMDIR : UNLINK, name, NULL);
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    int result = unlink(path);
    return result && errno == EISDIR ? rmdir(path) : result;
}

int mkdirat(int folder, const char *path, mode_t mode) {
    char whole[PATH_MAX];
    const char *name = below_root(folder, path, whole);
    if (!name) return syscall(SYS_mkdirat, folder, path, mode);
    pthread_mutex_lock(&lock);
    return named(syscall(SYS_mkdirat, folder, path, mode), MKDIR, name, NULL);
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int symlinkat(const char *target, int folder, const char *path) {
    char whole[PATH_MAX];
    const char *name = below_root(folder, path, whole);
    if (!name) return syscall(SYS_symlinkat, target, folder, path);
    pthread_mutex_lock(&lock);
    return named(syscall(SYS_symlinkat, target, folder, path), UNMODELLED, "a symbolic link", name);
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }
