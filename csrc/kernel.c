/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls that Python does not offer. Each returns -1 with errno on failure, and every descriptor it returns is
 * close-on-exec. Where the headers are too old to know a number, it is that of the table which nearly all architectures
 * share since Linux 5.1.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#ifndef SYS_move_mount
#define SYS_move_mount 429
#endif
#ifndef SYS_fsopen
#define SYS_fsopen 430
#endif
#ifndef SYS_fsconfig
#define SYS_fsconfig 431
#endif
#ifndef SYS_fsmount
#define SYS_fsmount 432
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

/* Words of the mount interface that <sys/mount.h> has only from glibc 2.36 on. */
enum {
	FS_CLOEXEC = 1,			/* FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC */
	FS_SET_STRING = 1,		/* FSCONFIG_SET_STRING */
	FS_CREATE = 6,			/* FSCONFIG_CMD_CREATE */
	MOVE_FROM_EMPTY_PATH = 4,	/* MOVE_MOUNT_F_EMPTY_PATH */
};

/* How a path is looked up below @dirfd: nothing leads out of it, neither "..", an absolute link nor a magic link. */
#ifndef RESOLVE_NO_XDEV
#define RESOLVE_NO_XDEV 0x01
#endif
#ifndef RESOLVE_NO_MAGICLINKS
#define RESOLVE_NO_MAGICLINKS 0x02
#endif
#ifndef RESOLVE_NO_SYMLINKS
#define RESOLVE_NO_SYMLINKS 0x04
#endif
#ifndef RESOLVE_BENEATH
#define RESOLVE_BENEATH 0x08
#endif
#ifndef RESOLVE_IN_ROOT
#define RESOLVE_IN_ROOT 0x10
#endif

static int lxccopy_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
	struct {
		uint64_t flags, mode, resolve;
	} how = { flags | O_CLOEXEC, mode, resolve };

	int fd, tries = 0;

	do	/* EAGAIN: something was renamed or mounted meanwhile, so that ".." could not be judged */
		fd = syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
	while (fd < 0 && errno == EAGAIN && ++tries < 100);
	return fd;
}

static int lxccopy_pidfd_open(pid_t pid)
{
	return syscall(SYS_pidfd_open, pid, 0);
}

/* Into a user and a mount namespace of our own, in which somebody else has to give us ids. */
static int lxccopy_unshare_user(void)
{
	return unshare(CLONE_NEWUSER | CLONE_NEWNS);
}

/* Renames a file or directory, unless there is something of the new name. glibc has it from 2.28 on. */
static int lxccopy_rename_new(const char *path, const char *new_path)
{
	const unsigned int no_replace = 1;	/* RENAME_NOREPLACE */

	return syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, new_path, no_replace);
}

/* Takes a mount away from where it is, whoever still uses it; through no link at the end of the path. */
static int lxccopy_unmount(const char *path)
{
	return umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
}

static int set_options(int fs, char *const options[])
{
	for (; *options; options += 2)
		if (syscall(SYS_fsconfig, fs, FS_SET_STRING, options[0], options[1], 0) < 0)
			return -1;
	return 0;
}

/*
 * Makes a file system that is mounted nowhere: its files are reached through the returned descriptor, and it is gone when
 * the last descriptor is closed, unless lxccopy_spawn() has mounted it. @options are names and values in turn, then NULL.
 */
static int lxccopy_mount(const char *type, char *const options[])
{
	int fs, mount = -1, error;

	fs = syscall(SYS_fsopen, type, FS_CLOEXEC);
	if (fs < 0)
		return -1;
	if (set_options(fs, options) == 0 && syscall(SYS_fsconfig, fs, FS_CREATE, NULL, NULL, 0) == 0)
		mount = syscall(SYS_fsmount, fs, FS_CLOEXEC, 0);
	error = errno;
	close(fs);
	errno = error;
	return mount;
}

/*
 * Opens a new pseudo terminal below @devpts, a descriptor of a mounted devpts. Both ends are close-on-exec and nobody's
 * controlling terminal.
 */
static int lxccopy_openpty(int devpts, int *primary, int *replica)
{
	const int flags = O_RDWR | O_NOCTTY | O_CLOEXEC;
	int unlocked = 0, error;

	*primary = openat(devpts, "ptmx", flags | O_NOFOLLOW);
	if (*primary < 0)
		return -1;
	if (ioctl(*primary, TIOCSPTLCK, &unlocked) == 0) {
		*replica = ioctl(*primary, TIOCGPTPEER, flags);
		if (*replica >= 0)
			return 0;
	}
	error = errno;
	close(*primary);
	errno = error;
	return -1;
}
