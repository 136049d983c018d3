/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Starting a container from a helper process, with a guard that ends it when we die.
 *
 * liblxc's start() moves its caller into the container's monitor cgroup, for good, and hands the caller's signal
 * dispositions and mounts on to the container. So the helper is the one who calls it, in a session, a mount namespace
 * and with descriptors of its own, and then ends. Everything below spawn_child() runs between fork() and _exit() of a
 * process that may have had other threads: system calls and liblxc only, which forks in the same way itself.
 *
 * The guard is another child of ours, forked before the helper, in none of the container's cgroups: those could not be
 * removed as long as it was in there. It waits for our end, or for being dismissed.
 */
#include <dirent.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* What a start takes: with eight hierarchies of cgroup1, liblxc has 45 descriptors open at once. */
#define LXCCOPY_FEWEST_FDS 80

/* Where the helper was when it failed; spawner.py has the words. */
enum lxccopy_step {
	LXCCOPY_STARTED = 0,
	LXCCOPY_STEP_FDS,
	LXCCOPY_STEP_NAMESPACE,
	LXCCOPY_STEP_TMPFS,
	LXCCOPY_STEP_OVERLAY,
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
	char **overlays;	/* overlays to mount then, options and place in turn, then NULL; or NULL */
	bool private_mounts;	/* needs CAP_SYS_ADMIN */
	bool foreground;	/* the helper itself becomes the monitor, with our terminal, until the container stops */
	bool guarded;		/* the container ends with us, unless the guard is dismissed before */
	int ledger_fd;		/* what is locked for as long as the guard lives, or -1 */
	int directory_fd;	/* the container's directory, so that the guard takes no other one for it, or -1 */
	bool remove;		/* the guard also removes it */
	const char *lock_file;	/* what liblxc leaves of a container that is gone */
	const char *kill_at;	/* the step at which the helper is killed, for tests */
	pid_t helper;		/* out: the helper's pid, to be waited for; -1 with errno where there is none */
	int socket;		/* out: where its report comes from; it ends when this is closed */
	pid_t guard;		/* out: the guard's pid, to be waited for; 0 where there is none */
	int guard_socket;	/* out: where the guard takes its dismissal from, or -1 */
};

/* What the guard is told, one of these and a pid in each message. */
enum lxccopy_word {
	LXCCOPY_HELPER = 1,	/* this is the helper */
	LXCCOPY_DISMISS,	/* there is nothing more to guard */
	LXCCOPY_TIDY,		/* let the container live, and remove it when it has stopped */
};

struct guard_message {
	int word;		/* enum lxccopy_word */
	pid_t pid;
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

/* With too few descriptors liblxc makes a thousand monitor cgroups, one after the other, and leaves them. */
static int require_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < LXCCOPY_FEWEST_FDS) {
		errno = EMFILE;
		return -1;
	}
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

static void reach(const struct lxccopy_plan *plan, const char *step)
{
	if (plan->kill_at && strcmp(plan->kill_at, step) == 0)
		raise(SIGKILL);
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
	for (char **overlay = plan->overlays; overlay && *overlay; overlay += 2) {
		if (mount("lxccopy", overlay[1], "overlay", 0, overlay[0]) < 0) {
			report->step = LXCCOPY_STEP_OVERLAY;
			report->error = errno;
			return -1;
		}
	}
	reach(plan, "helper-mounted");
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
	reach(plan, "helper-loaded");
	if (!c->start(c, 0, NULL)) {
		report->step = LXCCOPY_STEP_START;
		return -1;
	}
	reach(plan, "helper-started");
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

/* Kills all that a process has started, directly or not; of its own children only what those have started, where they
 * are spared. */
static void kill_descendants(pid_t pid, bool spare)
{
	char path[64], text[4096], *next = text, *end;
	ssize_t size;
	long child;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	size = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[size > 0 ? size : 0] = 0;
	end = strrchr(text, ' ');	/* what follows it is half a number where they did not fit, and another process */
	if (end)
		end[1] = 0;
	while ((child = strtol(next, &end, 10)) > 0 && end != next) {
		kill_descendants(child, false);
		if (!spare)
			kill(child, SIGKILL);
		next = end;
	}
}

/* After a failure: what start() left behind may still be tidying up, and our caller wants to find that done. Hooks may
 * have left daemons, too, for which nobody shall wait. Where the monitor was killed, what it ran ends with it. */
static void await_children(void)
{
	struct timespec patience = { .tv_sec = 2 };
	sigset_t child;
	int status;
	pid_t pid;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	for (;;) {
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
			if (WIFSIGNALED(status))
				kill_descendants(getpid(), false);
		if (pid < 0 || sigtimedwait(&child, NULL, &patience) < 0)
			return;
	}
}

static void spawn_child(struct lxccopy_plan plan, int socket, pid_t parent)
{
	struct lxccopy_report report = { 0 };
	struct guard_message announcement = { LXCCOPY_HELPER, getpid() };
	int *keep[] = { &socket, &plan.log_fd, &plan.tmpfs_fd };
	int pidfd = -1;
	ssize_t size;
	char word;

	if (plan.guard_socket >= 0)
		send(plan.guard_socket, &announcement, sizeof(announcement), MSG_NOSIGNAL);
	if (!plan.foreground)
		setsid();
	else if (!plan.guarded && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent))
		_exit(1);	/* as lxc-copy is the monitor itself; a guard lets it tidy up */
	reset_signals();
	umask(022);	/* a caller's narrow one would make mount points the container cannot use */
	/* What start() leaves behind becomes our child, so that it can be waited for when the start fails. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	reach(&plan, "helper-begun");
	if (require_descriptors() < 0 || keep_only(keep, 3, plan.foreground) < 0) {
		report.step = LXCCOPY_STEP_FDS;
		report.error = errno;
	} else if (start_container(&plan, &report, &pidfd) < 0 && report.step >= LXCCOPY_STEP_START) {
		await_children();
	}
	send_report(socket, &report, pidfd);
	reach(&plan, "helper-reported");
	/* In the foreground liblxc has left a client of its open, who waits for our end: perhaps our caller, in stop(). */
	close_from(socket + 1);
	/* Until our caller has looked at us, which it says, or is dead. */
	do
		size = read(socket, &word, 1);
	while (size < 0 && errno == EINTR);
	if (size == 0 && report.step != LXCCOPY_STARTED)
		poll(NULL, 0, 200);	/* for the guard to see in which cgroups we are, which go with us */
	_exit(0);
}

/* Whether a process has ended, or something has come from a socket, within a time; for ever where it is negative. */
static bool ends_within(int fd, int milliseconds)
{
	struct pollfd end = { .fd = fd, .events = POLLIN };

	return fd < 0 || poll(&end, 1, milliseconds) > 0;
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

/* Whoever has just been killed may still be on its way out. */
static void remove_cgroup(const char *path)
{
	for (int tries = 0; tries < 100 && rmdir(path) < 0 && errno == EBUSY; tries++)
		usleep(1000);
}

/* Removes a container's cgroups, of which its helper has been in the monitor's. They have the same path in each hierarchy
 * that they are in. */
static void remove_cgroups(const char *memberships)
{
	char line[8192], root[4096], path[8192], *name;
	FILE *mounts = fopen("/proc/self/mountinfo", "re");

	while (mounts && fgets(line, sizeof(line), mounts)) {
		if (!strstr(line, " - cgroup") || sscanf(line, "%*s %*s %*s %*s %4095s", root) != 1)
			continue;
		for (const char *next = memberships; (next = strstr(next, ":/")); next++) {
			snprintf(path, sizeof(path), "%s%.*s", root, (int)strcspn(next + 1, "\n"), next + 1);
			name = strstr(path, "/lxc.monitor.");
			if (name) {
				remove_cgroup(path);
				memcpy(name, "/lxc.payload.", strlen("/lxc.payload."));
				remove_cgroup(path);
			}
		}
	}
	if (mounts)
		fclose(mounts);
}

/*
 * Waits for a start that is under way, but not for ever: what a hook does there may take any time. A helper in the
 * foreground is the monitor itself, and ends no sooner than the container. Otherwise the monitor is its child, and first
 * gets a moment to tidy up; but for its cgroup, as the helper is in there, which is left in @cgroups.
 */
static void end_helper(pid_t helper, int pidfd, bool foreground, char cgroups[8192])
{
	const int wait = foreground ? 0 : 100;
	char now[8192];

	for (int tries = 0; tries < wait + 150; tries++) {
		if (tries >= wait)
			kill_descendants(helper, !foreground && tries < wait + 75);
		read_cgroups(helper, now, sizeof(now));
		if (strstr(now, "/lxc.monitor."))
			memcpy(cgroups, now, sizeof(now));
		if (ends_within(pidfd, tries < wait ? 50 : 10))
			return;
	}
	kill(helper, SIGKILL);	/* liblxc waits for ever for a child that dies at the wrong moment */
	ends_within(pidfd, 1000);
}

static bool is_still_there(const struct lxccopy_plan *plan)
{
	char path[PATH_MAX];
	struct stat found, made;

	snprintf(path, sizeof(path), "%s/%s", plan->lxcpath, plan->name);
	return stat(path, &found) == 0 && fstat(plan->directory_fd, &made) == 0 && found.st_dev == made.st_dev &&
	       found.st_ino == made.st_ino;
}

/*
 * Ends the container, or waits for its end, and removes it where its monitor has not. But not where that was killed, here
 * or before, as an ephemeral container's own removes it otherwise: it has left cgroups, and who removes those has to read
 * of them in the ledger.
 */
static void end_container(const struct lxccopy_plan *plan, bool stop, bool ran)
{
	struct lxc_container *c;
	int pidfd = -1;
	pid_t init, monitor;

	if (!is_still_there(plan))
		return;
	c = liblxc.container_new(plan->name, plan->lxcpath);
	if (!c)
		return;
	init = c->init_pid(c);
	if (init > 0)
		pidfd = open_monitor(init, &monitor);
	else if (ran) {
		liblxc.container_put(c);
		return;
	}
	if (stop && init > 0)
		c->stop(c);
	ends_within(pidfd, stop ? 10000 : -1);
	if (plan->remove && (init <= 0 || !stop) && is_still_there(plan) && c->is_defined(c))
		c->destroy(c);
	liblxc.container_put(c);
	if (!is_still_there(plan))
		unlink(plan->lock_file);
}

/* Shows in ps what we are, so that nobody who means our parent, by its command line, kills us with it. */
static void set_title(const struct lxccopy_plan *plan)
{
	unsigned long start, end;
	char text[2048], *field;
	ssize_t size;
	int fd;

	fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	size = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[size > 0 ? size : 0] = 0;
	field = strrchr(text, ')');
	for (int number = 2; field && number < 48; number++)
		field = strchr(field + 1, ' ');
	if (!field || sscanf(field, "%lu %lu", &start, &end) != 2 || start >= end)
		return;
	memset((char *)start, 0, end - start);
	snprintf((char *)start, end - start, "[lxccopy guard] %s %s", plan->lxcpath, plan->name);
	prctl(PR_SET_NAME, "lxccopy-guard");
}

static void guard(struct lxccopy_plan plan, int socket, pid_t parent)
{
	int *keep[] = { &socket, &plan.ledger_fd, &plan.directory_fd };
	struct guard_message message;
	struct pollfd events[2];
	int helper_fd = -1;
	pid_t helper = 0;
	char cgroups[8192] = "";
	bool started;

	setsid();
	reset_signals();
	/* Those who end a whole service mean our parent, which then dismisses us. */
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	set_title(&plan);
	if (keep_only(keep, 3, false) < 0 || chdir("/") < 0)
		_exit(1);
	events[0] = (struct pollfd){ .fd = socket, .events = POLLIN };
	/* Others that our parent has forked may hold its end of the socket, too. */
	events[1] = (struct pollfd){ .fd = lxccopy_pidfd_open(parent), .events = POLLIN };
	for (;;) {
		bool orphaned = getppid() != parent;
		ssize_t size = recv(socket, &message, sizeof(message), MSG_DONTWAIT);

		if (size == 0)
			break;	/* it is dead, or has lost us */
		if (size < 0 && orphaned) {
			/* A helper that was forked right before that is yet to say so. */
			if (!ends_within(socket, 1000))
				break;
		} else if (size < 0) {
			poll(events, 2, -1);
		} else if (message.word == LXCCOPY_HELPER) {
			helper = message.pid;
			helper_fd = lxccopy_pidfd_open(helper);
		} else {
			if (message.word == LXCCOPY_TIDY && fork() == 0)
				end_container(&plan, false, true);
			_exit(0);
		}
	}
	started = helper_fd >= 0 && ends_within(helper_fd, 0);
	if (helper_fd >= 0)
		end_helper(helper, helper_fd, plan.foreground, cgroups);
	end_container(&plan, true, started);
	remove_cgroups(cgroups);
	_exit(0);
}

/* A process of ours and a socket to it. A signal that it receives before it has reset them must not run our handlers. */
static pid_t fork_with_socket(int *socket, int *theirs)
{
	int pair[2], error;
	sigset_t all, old;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (pid == 0) {
		close(pair[0]);
		*theirs = pair[1];
		return 0;
	}
	error = errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	close(pair[1]);
	if (pid < 0)
		close(pair[0]);
	else
		*socket = pair[0];
	errno = error;
	return pid;
}

/* Lets a guard go: it ends at once, or, where it shall tidy up, leaves another process behind. */
static void lxccopy_dismiss(struct lxccopy_plan *plan, bool tidy)
{
	struct guard_message message = { tidy ? LXCCOPY_TIDY : LXCCOPY_DISMISS, 0 };
	pid_t pid = plan->guard;

	if (pid <= 0)
		return;
	plan->guard = 0;
	send(plan->guard_socket, &message, sizeof(message), MSG_NOSIGNAL);
	close(plan->guard_socket);
	plan->guard_socket = -1;
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* Starts a container from a helper process, whose pid and socket it leaves in @plan, after those of a guard. */
static void lxccopy_spawn(struct lxccopy_plan *plan)
{
	pid_t pid, parent = getpid();
	int theirs = -1, error;

	plan->helper = -1;
	plan->guard = 0;
	plan->guard_socket = -1;
	if (plan->guarded) {
		pid = fork_with_socket(&plan->guard_socket, &theirs);
		if (pid == 0)
			guard(*plan, theirs, parent);
		if (pid < 0)
			return;
		plan->guard = pid;
	}
	pid = fork_with_socket(&plan->socket, &theirs);
	if (pid == 0)
		spawn_child(*plan, theirs, parent);
	error = errno;
	plan->helper = pid;
	if (pid < 0)
		lxccopy_dismiss(plan, false);
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

/*
 * Takes the helper's report, lets it go and waits for its end. All in one call, between whose parts no signal handler of
 * the caller's can raise an exception.
 */
static void lxccopy_finish(struct lxccopy_plan *plan, struct lxccopy_end *end)
{
	end->monitor = -1;
	receive_report(plan->socket, end);
	read_cgroups(plan->helper, end->cgroups, sizeof(end->cgroups));
	send(plan->socket, "", 1, MSG_NOSIGNAL);
	close(plan->socket);
	while (waitpid(plan->helper, NULL, 0) < 0 && errno == EINTR)
		;
	plan->helper = 0;
}
