/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Running a command in a container: what happens between attach()'s fork and the command's exec, and the descriptor
 * that attach() forgets.
 */

/* How far a command came; command.py has the words. */
enum lxccopy_stage {
	LXCCOPY_ENTERED = 0,	/* attach() has put it into the container */
	LXCCOPY_FAILED_ROOT,	/* but not into the container's root directory */
	LXCCOPY_FAILED_CWD,
	LXCCOPY_FAILED_USER,	/* its user or groups cannot be set */
	LXCCOPY_FAILED_EXEC,
};

struct lxccopy_command {
	char **argv;
	const char *cwd;	/* NULL: where attach() put us */
	int terminal;		/* which of 0 to 2 becomes the controlling terminal, or -1 */
	int outcome_fd;		/* gets a pair of stage and errno when it has entered, and one more if it then fails */
	uint64_t root[2];	/* device and inode of the container's root directory; 0 where it cannot be seen */
	bool as_user;		/* or else root, as attach() has made it */
	uid_t uid;
	gid_t gid;
	gid_t *groups;
	size_t group_count;
};

/* 32 bits architectures have calls with ids of 16 bits under the plain names. */
#ifdef SYS_setuid32
#define SET_GROUPS SYS_setgroups32
#define SET_GID SYS_setresgid32
#define SET_UID SYS_setresuid32
#else
#define SET_GROUPS SYS_setgroups
#define SET_GID SYS_setresgid
#define SET_UID SYS_setresuid
#endif

static void tell(int fd, int stage, int error)
{
	int outcome[2] = { stage, error };

	if (fd >= 0 && write(fd, outcome, sizeof(outcome)) < 0)
		_exit(126);
}

/* attach() enters the root of the mount namespace. For a container that was started from within a chroot, this is the
 * host's: its own root directory lies on what was the chroot's. Nothing may be run there. */
static bool in_root_of(const struct lxccopy_command *command)
{
	struct stat root;

	return !command->root[1] || (stat("/", &root) == 0 && root.st_dev == command->root[0] &&
				     root.st_ino == command->root[1]);
}

/* The C library's functions of these names would wait for the threads that our caller has and we have not. */
static bool become_user(const struct lxccopy_command *command)
{
	return syscall(SET_GROUPS, command->group_count, command->groups) == 0 &&
	       syscall(SET_GID, command->gid, command->gid, command->gid) == 0 &&
	       syscall(SET_UID, command->uid, command->uid, command->uid) == 0;
}

/* Runs in the container, in a fork of our caller: nothing but system calls here. */
static int command_exec(void *payload)
{
	struct lxccopy_command *command = payload;
	int fd = command->outcome_fd, error;

	/* Python ignores SIGPIPE, and the host's terminal must not stay the command's. */
	reset_signals();
	setsid();
	umask(022);
	/* No descriptor of our caller's may come along: through a directory's, the host would be open. */
	if (fd >= 0 && fd != 3)
		fd = dup3(fd, 3, O_CLOEXEC);
	close_from(fd >= 0 ? 4 : 3);
	tell(fd, LXCCOPY_ENTERED, 0);
	if (command->terminal >= 0)
		ioctl(command->terminal, TIOCSCTTY, 0);
	if (!in_root_of(command)) {
		tell(fd, LXCCOPY_FAILED_ROOT, EXDEV);
		_exit(126);
	}
	if (command->cwd && chdir(command->cwd) < 0) {
		tell(fd, LXCCOPY_FAILED_CWD, errno);
		_exit(126);
	}
	if (command->as_user && !become_user(command)) {
		tell(fd, LXCCOPY_FAILED_USER, errno);
		_exit(126);
	}
	execvp(command->argv[0], command->argv);
	error = errno;
	tell(fd, LXCCOPY_FAILED_EXEC, error);
	_exit(error == ENOENT ? 127 : 126);
}

/* Calls @seen for every open descriptor. Costs two small system calls for each hundred of them. */
static void each_fd(void (*seen)(int fd, void *data), void *data)
{
	struct dirent *entry;
	DIR *fds = opendir("/proc/self/fd");

	if (!fds)
		return;
	while ((entry = readdir(fds)))
		if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(fds))
			seen(atoi(entry->d_name), data);
	closedir(fds);
}

static bool is_pidfd(int fd)
{
	char path[64], target[64];
	ssize_t size;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	size = readlink(path, target, sizeof(target) - 1);
	if (size < 0)
		return false;
	target[size] = 0;
	return strcmp(target, "anon_inode:[pidfd]") == 0 || strncmp(target, "pidfd:", 6) == 0;
}

static pid_t pidfd_pid(int fd)
{
	char path[64], line[128];
	pid_t pid = -1;
	FILE *info;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = fopen(path, "re");
	if (!info)
		return -1;
	while (fgets(line, sizeof(line), info))
		if (sscanf(line, "Pid: %d", &pid) == 1)
			break;
	fclose(info);
	return pid;
}

struct fd_set_before {
	unsigned char *open;
	int size;
	pid_t init;
	bool failed;	/* and no other attach was under way at the time */
};

/* How many attaches have begun, and how many are under way. */
static int attaches_begun, attaches_now;

/* A descriptor of our own directory in /proc, which liblxc leaves when it cannot ask the monitor. */
static bool is_self(int fd)
{
	char path[64], target[64], self[64];
	ssize_t size;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	snprintf(self, sizeof(self), "/proc/%d", (int)getpid());
	size = readlink(path, target, sizeof(target) - 1);
	if (size < 0 || !(fcntl(fd, F_GETFL) & O_PATH))
		return false;
	target[size] = 0;
	return strcmp(target, self) == 0;
}

static void remember(int fd, void *data)
{
	struct fd_set_before *before = data;

	if (fd < before->size)
		before->open[fd] = 1;
}

static void close_leaked(int fd, void *data)
{
	struct fd_set_before *before = data;

	if (fd >= before->size || before->open[fd])
		return;
	if ((is_pidfd(fd) && pidfd_pid(fd) == before->init) || (before->failed && is_self(fd)))
		close(fd);
}

static void default_attach_options(lxc_attach_options_t *options)
{
	*options = (lxc_attach_options_t){
		.attach_flags = LXC_ATTACH_DEFAULT,
		.namespaces = -1,
		.personality = ~0L,
		.uid = (uid_t)-1,
		.gid = (gid_t)-1,
		.env_policy = LXC_ATTACH_CLEAR_ENV,
		.stdin_fd = -1,
		.stdout_fd = -1,
		.stderr_fd = -1,
		.log_fd = -EBADF,
	};
}

/*
 * attach() with @command. Returns what attach() returns; *pid is a child of ours.
 *
 * From 5.0.2 on liblxc leaves a pidfd of the container's init open at every attach. We close the one that appeared: the
 * caller holds the handle's lock, so no other attach of this handle is under way. Where it fails, it can leave another.
 */
static int container_attach(struct lxc_container *c, struct lxccopy_command *command, lxc_attach_options_t *options,
			    pid_t *pid)
{
	struct fd_set_before before = { .init = c->init_pid(c) };
	struct stat root;
	char path[64];
	int result, error, begun;
	bool alone;

	snprintf(path, sizeof(path), "/proc/%d/root/", (int)before.init);
	if (stat(path, &root) == 0) {
		command->root[0] = root.st_dev;
		command->root[1] = root.st_ino;
	}
	before.size = sysconf(_SC_OPEN_MAX) > 65536 ? 65536 : (int)sysconf(_SC_OPEN_MAX);
	before.open = calloc(before.size, 1);
	if (before.open)
		each_fd(remember, &before);
	begun = __atomic_add_fetch(&attaches_begun, 1, __ATOMIC_SEQ_CST);
	alone = __atomic_add_fetch(&attaches_now, 1, __ATOMIC_SEQ_CST) == 1;
	result = c->attach(c, command_exec, command, options, pid);
	error = errno;
	before.failed = result < 0 && alone && __atomic_load_n(&attaches_begun, __ATOMIC_SEQ_CST) == begun;
	if (before.open) {
		each_fd(close_leaked, &before);
		free(before.open);
	}
	__atomic_sub_fetch(&attaches_now, 1, __ATOMIC_SEQ_CST);
	errno = error;
	return result;
}
