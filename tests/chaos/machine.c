/* A machine that fails on command, for one process: preloaded before libc.
 *
 * It stands between a program and the files below CHAOS_DATA (SQLite's -shm apart, which is memory), and
 * between the program and the wall clock. Two things tell it what to do:
 *
 *   CHAOS_CONTROL  a file of 64-bit integers, mapped: the test writes there while the program runs
 *   CHAOS_JOURNAL  if set, every change of a file is first written down here with what it replaces, and
 *                  nothing is really synced. A kill is then a power cut: power.rs takes back what no fsync
 *                  covered. Directory entries count as changes too; their fsync is that of the directory.
 *
 * Records of the journal are written before the change, whole or not at all as far as a reader can tell.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { WRITE = 1, TRUNCATE, SYNC, FAILED_SYNC, CREATE, RENAME, UNLINK, SYNC_DIRECTORY };
enum { MAGIC = 0x4c4f5353, PATH_ROOM = 4096 };
/* A sync takes time on any disk: a power cut finds one under way. */
enum { SYNC_US = 1500 };

/* The words of the control file. */
struct control {
    int64_t clock_offset_ms;
    int64_t disk_is_full;
    int64_t fail_sync; /* the n-th sync from now on fails with EIO; 0: none */
    int64_t refused;   /* how many writes found the disk full */
};

/* Followed by `before` bytes that were there and `after` bytes that come: contents, or paths. */
struct record {
    uint32_t magic, kind;
    uint64_t inode, offset, size, before, after;
};

static struct control nothing, *control = &nothing;
static char data[PATH_ROOM];
static char journal_path[PATH_ROOM];
static int journal = -1;
static unsigned saved;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t), (*real_fsync)(int), (*real_fdatasync)(int);
static int (*real_rename)(const char *, const char *), (*real_unlink)(const char *);
static int (*real_open)(const char *, int, ...);
static int (*real_clock_gettime)(clockid_t, struct timespec *);

/* libc may call us before its own constructors are through: everything is looked up on first use. */
__attribute__((constructor)) static void prepare(void) {
    if (real_clock_gettime) return;
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_open = dlsym(RTLD_NEXT, "open64");
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    const char *root = getenv("CHAOS_DATA"), *word = getenv("CHAOS_CONTROL"), *log = getenv("CHAOS_JOURNAL");
    if (root) snprintf(data, sizeof data, "%s", root);
    if (word) {
        int file = real_open(word, O_RDWR | O_CLOEXEC);
        void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (file < 0 || map == MAP_FAILED) abort();
        close(file);
        control = map;
    }
    if (log) {
        snprintf(journal_path, sizeof journal_path, "%s", log);
        journal = real_open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (journal < 0) abort();
    }
}

static int is_data(const char *path) {
    size_t root = strlen(data), length = strlen(path);
    if (!root || strncmp(path, data, root) || (path[root] && path[root] != '/')) return 0;
    return length < 4 || strcmp(path + length - 4, "-shm");
}

/* Whether a descriptor is a file (or directory) below the data directory. */
static int find(int descriptor, struct stat *facts, int kind) {
    char link[64], path[PATH_ROOM];
    if (!*data || fstat(descriptor, facts) || (facts->st_mode & S_IFMT) != (mode_t)kind) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_data(path);
}

static void put(const void *bytes, size_t count) {
    const char *next = bytes;
    while (count) {
        ssize_t done = real_write(journal, next, count);
        if (done <= 0) abort();
        next += done;
        count -= done;
    }
}

static void note(int kind, uint64_t inode, uint64_t offset, uint64_t size, const void *before, size_t old,
                 const void *after, size_t fresh) {
    struct record record = {MAGIC, kind, inode, offset, size, old, fresh};
    put(&record, sizeof record);
    put(before, old);
    put(after, fresh);
}

/* What is between two offsets of an open file now; the descriptor may be write-only. */
static char *contents(int descriptor, off_t from, off_t to, size_t *got) {
    char link[64];
    *got = 0;
    if (to <= from) return NULL;
    char *bytes = malloc(to - from);
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    int file = real_open(link, O_RDONLY | O_CLOEXEC);
    if (!bytes || file < 0) abort();
    while (*got < (size_t)(to - from)) {
        ssize_t done = pread(file, bytes + *got, to - from - *got, from + *got);
        if (done <= 0) break;
        *got += done;
    }
    close(file);
    return bytes;
}

static ssize_t write_at(int descriptor, const void *bytes, size_t count, off_t offset, int is_positioned) {
    struct stat facts;
    int ours = find(descriptor, &facts, S_IFREG);
    if (ours && control->disk_is_full) {
        control->refused++;
        errno = ENOSPC;
        return -1;
    }
    if (!ours || journal < 0) {
        return is_positioned ? real_pwrite(descriptor, bytes, count, offset) : real_write(descriptor, bytes, count);
    }
    pthread_mutex_lock(&lock);
    fstat(descriptor, &facts);
    off_t at = is_positioned ? offset : lseek(descriptor, 0, SEEK_CUR);
    if (!is_positioned && (fcntl(descriptor, F_GETFL) & O_APPEND)) at = facts.st_size;
    size_t old;
    char *before = contents(descriptor, at, at + (off_t)count, &old);
    note(WRITE, facts.st_ino, at, facts.st_size, before, old, bytes, count);
    free(before);
    ssize_t done =
        is_positioned ? real_pwrite(descriptor, bytes, count, offset) : real_write(descriptor, bytes, count);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int descriptor, const void *bytes, size_t count) {
    prepare();
    return write_at(descriptor, bytes, count, 0, 0);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t offset) {
    prepare();
    return write_at(descriptor, bytes, count, offset, 1);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off64_t offset) {
    return pwrite(descriptor, bytes, count, offset);
}

int ftruncate(int descriptor, off_t size) {
    prepare();
    struct stat facts;
    if (journal < 0 || !find(descriptor, &facts, S_IFREG)) return real_ftruncate(descriptor, size);
    pthread_mutex_lock(&lock);
    fstat(descriptor, &facts);
    size_t old;
    char *before = contents(descriptor, size, facts.st_size, &old);
    note(TRUNCATE, facts.st_ino, size, facts.st_size, before, old, NULL, 0);
    free(before);
    int done = real_ftruncate(descriptor, size);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate64(int descriptor, off64_t size) { return ftruncate(descriptor, size); }

static int sync_file(int descriptor, int (*really)(int)) {
    struct stat facts;
    char link[64], path[PATH_ROOM];
    if (journal >= 0 && find(descriptor, &facts, S_IFDIR)) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        ssize_t length = readlink(link, path, sizeof path);
        pthread_mutex_lock(&lock);
        note(SYNC_DIRECTORY, 0, 0, 0, path, length, NULL, 0);
        pthread_mutex_unlock(&lock);
        return 0;
    }
    if (!find(descriptor, &facts, S_IFREG)) return really(descriptor);
    if (journal >= 0) usleep(SYNC_US);
    pthread_mutex_lock(&lock);
    int fails = control->fail_sync && --control->fail_sync == 0;
    if (journal >= 0) note(fails ? FAILED_SYNC : SYNC, facts.st_ino, 0, 0, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    if (fails) {
        errno = EIO;
        return -1;
    }
    return journal >= 0 ? 0 : really(descriptor);
}

int fsync(int descriptor) {
    prepare();
    return sync_file(descriptor, real_fsync);
}

int fdatasync(int descriptor) {
    prepare();
    return sync_file(descriptor, real_fdatasync);
}

/* Keeps a name's file under another one beside the journal, so that the name can be given back. */
static void keep(const char *path, char *kept, size_t room) {
    snprintf(kept, room, "%s.saved-%u", journal_path, saved++);
    if (link(path, kept)) *kept = 0;
}

int rename(const char *from, const char *to) {
    prepare();
    char kept[PATH_ROOM * 2], paths[PATH_ROOM * 2];
    if (journal < 0 || !is_data(to)) return real_rename(from, to);
    pthread_mutex_lock(&lock);
    keep(to, kept, sizeof kept);
    int length = snprintf(paths, sizeof paths, "%s%c%s", from, 0, to);
    note(RENAME, 0, 0, 0, kept, strlen(kept), paths, length);
    int done = real_rename(from, to);
    pthread_mutex_unlock(&lock);
    return done;
}

int unlink(const char *path) {
    prepare();
    char kept[PATH_ROOM * 2];
    if (journal < 0 || !is_data(path)) return real_unlink(path);
    pthread_mutex_lock(&lock);
    keep(path, kept, sizeof kept);
    if (*kept) note(UNLINK, 0, 0, 0, kept, strlen(kept), path, strlen(path));
    int done = real_unlink(path);
    pthread_mutex_unlock(&lock);
    return done;
}

int open(const char *path, int flags, ...) {
    prepare();
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list rest;
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    if (!(flags & O_CREAT) || !is_data(path)) return real_open(path, flags, mode);
    int exists = access(path, F_OK) == 0;
    if (!exists && control->disk_is_full) {
        errno = ENOSPC;
        return -1;
    }
    if (exists || journal < 0) return real_open(path, flags, mode);
    pthread_mutex_lock(&lock);
    note(CREATE, 0, 0, 0, NULL, 0, path, strlen(path));
    int done = real_open(path, flags, mode);
    pthread_mutex_unlock(&lock);
    return done;
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open(path, flags, mode);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    prepare();
    int done = real_clock_gettime(clock, time);
    if (!done && clock == CLOCK_REALTIME) time->tv_sec += control->clock_offset_ms / 1000;
    return done;
}
