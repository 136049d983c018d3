/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Starting a container from a helper process.
 *
 * liblxc's start() moves its caller into the container's monitor cgroup, for good, and hands the caller's signal
 * dispositions and mounts on to the container. So the helper is the one who calls it, in a session, a mount namespace
 * and with descriptors of its own, and then ends. Everything below spawn_child() runs between fork() and _exit() of a
 * process that may have had other threads: system calls and liblxc only, which forks in the same way itself.
 */
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* Where the helper was when it failed; spawner.py has the words. */
enum lxccopy_step {
	LXCCOPY_STARTED = 0,
	LXCCOPY_STEP_FDS,
	LXCCOPY_STEP_NAMESPACE,
	LXCCOPY_STEP_TMPFS,
	LXCCOPY_STEP_LOAD,
	LXCCOPY_STEP_START,
	LXCCOPY_STEP_MONITOR,
	LXCCOPY_STEP_HELPER,
};

struct lxccopy_plan {
	const char *name;
	const char *lxcpath;
	const char *log_level;	/* NULL: liblxc's default, ERROR */
	int log_fd;
	int tmpfs_fd;		/* from lxccopy_mount(), or -1 */
	const char *tmpfs_path;	/* where to mount it */
	bool private_mounts;	/* needs CAP_SYS_ADMIN */
	bool foreground;	/* the helper itself becomes the monitor, with our terminal, until the container stops */
	pid_t helper;		/* out: the helper's pid, to be waited for; -1 with errno where there is none */
	int socket;		/* out: where its report comes from; it ends when this is closed */
};

struct lxccopy_report {
	int step;		/* enum lxccopy_step */
	int error;		/* errno, or 0 where liblxc alone knows why */
	int init_pid;
	int monitor_pid;
};

static void reset_signals(void)
{
	/* The kernel's struct sigaction with SIG_DFL and its sigset_t, whose layouts differ between architectures. The
	 * library's functions leave out two signals, which a caller's caller may have set all the same. */
	static const char zero[64];
	const size_t set_size = _NSIG / 8;

	for (int number = 1; number < _NSIG; number++)
		syscall(SYS_rt_sigaction, number, zero, NULL, set_size);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, zero, NULL, set_size);
}

/* With SIGCHLD ignored, also by inheritance, liblxc loses its children: clone() fails and stop() never returns. */
static bool lxccopy_sigchld_ignored(void)
{
	struct sigaction action;

	sigaction(SIGCHLD, NULL, &action);
	return action.sa_handler == SIG_IGN || (action.sa_flags & SA_NOCLDWAIT);
}

/* Closes every descriptor from @first on. */
static void close_from(int first)
{
	struct dirent *entry;
	DIR *fds;

	if (syscall(SYS_close_range, first, ~0U, 0) == 0)
		return;
	fds = opendir("/proc/self/fd");	/* before Linux 5.9 */
	if (!fds)
		return;
	while ((entry = readdir(fds))) {
		int fd = atoi(entry->d_name);

		if (fd >= first && fd != dirfd(fds))
			close(fd);
	}
	closedir(fds);
}

/*
 * Leaves the helper with /dev/null on 0 to 2, unless it shall have those of its caller, and the descriptors of @keep on
 * 3, 4, ...; each of @keep is changed to its new number, and -1 stays. liblxc must not find a closed 0 to 2, nor print
 * where our caller's output goes.
 */
static int keep_only(int *keep[], int count, bool stdio)
{
	int next = 3, null;

	for (int i = 0; i < count; i++) {	/* out of the way first, so that no dup2() below hits one */
		if (*keep[i] < 0)
			continue;
		*keep[i] = fcntl(*keep[i], F_DUPFD_CLOEXEC, 3 + count);
		if (*keep[i] < 0)
			return -1;
	}
	null = open("/dev/null", O_RDWR);
	if (null < 0)
		return -1;
	for (int fd = 0; fd < 3; fd++)
		if (!stdio && dup2(null, fd) < 0)
			return -1;
	for (int i = 0; i < count; i++) {
		if (*keep[i] < 0)
			continue;
		if (dup3(*keep[i], next, O_CLOEXEC) < 0)
			return -1;
		*keep[i] = next++;
	}
	close_from(next);
	return 0;
}

/* A namespace of our own for mounts: ours never reach the host, the host's later unmounts still reach us. */
static int unshare_mounts(void)
{
	if (unshare(CLONE_NEWNS) < 0)
		return -1;
	return mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL);
}

static pid_t parent_of(pid_t pid)
{
	char path[64], text[512], *end;
	ssize_t size;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	size = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (size <= 0)
		return -1;
	text[size] = 0;
	end = strrchr(text, ')');	/* the name may hold anything, also blanks and parentheses */
	return end ? atoi(end + 4) : -1;
}

/* A pidfd of the container's monitor, which is the parent of its init; checked after opening, so it is no other's. */
static int open_monitor(pid_t init, pid_t *monitor)
{
	int pidfd;

	*monitor = parent_of(init);
	if (*monitor <= 1) {
		errno = ESRCH;
		return -1;
	}
	pidfd = lxccopy_pidfd_open(*monitor);
	if (pidfd >= 0 && parent_of(init) != *monitor) {
		close(pidfd);
		errno = ESRCH;
		return -1;
	}
	return pidfd;
}

/* The report is one message; the monitor's pidfd rides on it. */
static void send_report(int socket, const struct lxccopy_report *report, int pidfd)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec data = { (void *)report, sizeof(*report) };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1 };

	if (pidfd >= 0) {
		struct cmsghdr *header;

		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &pidfd, sizeof(int));
	}
	sendmsg(socket, &message, MSG_NOSIGNAL);
}

static int start_container(struct lxccopy_plan *plan, struct lxccopy_report *report, int *pidfd)
{
	struct lxc_container *c;
	char log_file[32];

	if (plan->private_mounts && unshare_mounts() < 0) {
		report->step = LXCCOPY_STEP_NAMESPACE;
		report->error = errno;
		return -1;
	}
	if (plan->tmpfs_fd >= 0) {
		if (syscall(SYS_move_mount, plan->tmpfs_fd, "", AT_FDCWD, plan->tmpfs_path, MOVE_FROM_EMPTY_PATH) < 0) {
			report->step = LXCCOPY_STEP_TMPFS;
			report->error = errno;
			return -1;
		}
		close(plan->tmpfs_fd);
	}
	/* A fresh handle: after clone() some drivers start wrong from memory, and a thread may hold the caller's lock. */
	c = liblxc.container_new(plan->name, plan->lxcpath);
	if (!c) {
		report->step = LXCCOPY_STEP_LOAD;
		return -1;
	}
	snprintf(log_file, sizeof(log_file), "/proc/self/fd/%d", plan->log_fd);
	if (c->get_config_item(c, "lxc.log.file", NULL, 0) <= 0) {	/* a log of its own is left to the container */
		c->set_config_item(c, "lxc.log.file", log_file);
		c->clear_config_item(c, "lxc.log.file");
		if (plan->log_level)
			c->set_config_item(c, "lxc.log.level", plan->log_level);
	}
	c->want_daemonize(c, !plan->foreground);
	if (!c->start(c, 0, NULL)) {
		report->step = LXCCOPY_STEP_START;
		return -1;
	}
	if (plan->foreground)	/* it has run, and stopped */
		return 0;
	report->init_pid = c->init_pid(c);
	*pidfd = open_monitor(report->init_pid, &report->monitor_pid);
	if (*pidfd >= 0)
		return 0;
	report->step = LXCCOPY_STEP_MONITOR;
	report->error = errno;
	if (errno != ESRCH)	/* it runs, but cannot be watched: no descriptor left, or a filter that forbids it */
		c->stop(c);
	return -1;
}

/* After a failure: what start() left behind may still be tidying up, and our caller wants to find that done. Hooks may
 * have left daemons, too, for which nobody shall wait. */
static void await_children(void)
{
	struct timespec patience = { .tv_sec = 2 };
	sigset_t child;
	pid_t pid;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	for (;;) {
		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
			;
		if (pid < 0 || sigtimedwait(&child, NULL, &patience) < 0)
			return;
	}
}

static void spawn_child(struct lxccopy_plan plan, int socket, pid_t parent)
{
	struct lxccopy_report report = { 0 };
	int *keep[] = { &socket, &plan.log_fd, &plan.tmpfs_fd };
	int pidfd = -1;

	if (!plan.foreground)
		setsid();
	else if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)	/* as lxc-copy is the monitor itself */
		_exit(1);
	reset_signals();
	umask(022);	/* a caller's narrow one would make mount points the container cannot use */
	/* What start() leaves behind becomes our child, so that it can be waited for when the start fails. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (keep_only(keep, 3, plan.foreground) < 0) {
		report.step = LXCCOPY_STEP_FDS;
		report.error = errno;
	} else if (start_container(&plan, &report, &pidfd) < 0 && report.step >= LXCCOPY_STEP_START) {
		await_children();
	}
	send_report(socket, &report, pidfd);
	/* In the foreground liblxc has left a client of its open, who waits for our end: perhaps our caller, in stop(). */
	close_from(socket + 1);
	/* Until our caller has looked at us, or is dead. */
	while (read(socket, &report, 1) < 0 && errno == EINTR)
		;
	_exit(0);
}

/* Starts a container from a helper process, whose pid and socket it leaves in @plan. */
static void lxccopy_spawn(struct lxccopy_plan *plan)
{
	int pair[2], error;
	pid_t pid, parent = getpid();
	sigset_t all, old;

	plan->helper = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	/* A signal that the child receives before it has reset them must not run the caller's handlers. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (pid == 0) {
		close(pair[0]);
		spawn_child(*plan, pair[1], parent);
	}
	error = errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	close(pair[1]);
	if (pid < 0)
		close(pair[0]);
	plan->socket = pair[0];
	plan->helper = pid;
	errno = error;
}

/* How a start ended. */
struct lxccopy_end {
	struct lxccopy_report report;	/* step is LXCCOPY_STEP_HELPER if the helper died without a word */
	int monitor;			/* a pidfd of the container's monitor, or -1 where it did not start */
	char cgroups[8192];		/* the helper's /proc/PID/cgroup: liblxc had moved it into the monitor's */
};

static void receive_report(int socket, struct lxccopy_end *end)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec data = { &end->report, sizeof(end->report) };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *header;
	ssize_t size;

	do
		size = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	while (size < 0 && errno == EINTR);
	if (size != sizeof(end->report)) {
		memset(&end->report, 0, sizeof(end->report));
		end->report.step = LXCCOPY_STEP_HELPER;
		return;
	}
	header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
		memcpy(&end->monitor, CMSG_DATA(header), sizeof(int));
	} else if (end->report.step == LXCCOPY_STARTED && end->report.init_pid) {	/* it was sent, but did not fit */
		end->report.step = LXCCOPY_STEP_FDS;
		end->report.error = EMFILE;
	}
}

static void read_cgroups(pid_t pid, char *text, size_t size)
{
	char path[64];
	ssize_t got, length = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		while ((got = read(fd, text + length, size - 1 - length)) > 0)
			length += got;
		close(fd);
	}
	text[length] = 0;
}

/*
 * Takes the helper's report, lets it go and waits for its end. All in one call, between whose parts no signal handler of
 * the caller's can raise an exception.
 */
static void lxccopy_finish(struct lxccopy_plan *plan, struct lxccopy_end *end)
{
	end->monitor = -1;
	receive_report(plan->socket, end);
	read_cgroups(plan->helper, end->cgroups, sizeof(end->cgroups));
	/* Not close() alone: a process that was forked meanwhile may hold this end of the socket as well. */
	shutdown(plan->socket, SHUT_RDWR);
	close(plan->socket);
	while (waitpid(plan->helper, NULL, 0) < 0 && errno == EINTR)
		;
	plan->helper = 0;
}
