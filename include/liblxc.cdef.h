/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What Python sees of csrc/: read by build_ffi.py through cffi, which knows no preprocessor. */

typedef int... pid_t;
typedef int... uid_t;
typedef int... gid_t;

struct lxc_container;

#define LXC_CLONE_KEEPNAME ...
#define LXC_CLONE_KEEPMACADDR ...
#define LXC_CLONE_SNAPSHOT ...
#define LXC_CLONE_KEEPBDEVTYPE ...
#define LXC_CLONE_MAYBE_SNAPSHOT ...
#define LXC_CLONE_ALLOW_RUNNING ...

#define LXC_ATTACH_MOVE_TO_CGROUP ...
#define LXC_ATTACH_DROP_CAPABILITIES ...
#define LXC_ATTACH_SET_PERSONALITY ...
#define LXC_ATTACH_LSM_EXEC ...
#define LXC_ATTACH_REMOUNT_PROC_SYS ...
#define LXC_ATTACH_NO_NEW_PRIVS ...
#define LXC_ATTACH_DEFAULT ...
#define LXC_ATTACH_KEEP_ENV ...
#define LXC_ATTACH_CLEAR_ENV ...

typedef struct lxc_attach_options_t {
	int attach_flags;
	int namespaces;
	long personality;
	char *initial_cwd;
	uid_t uid;
	gid_t gid;
	int env_policy;
	char **extra_env_vars;
	char **extra_keep_env;
	int stdin_fd;
	int stdout_fd;
	int stderr_fd;
	int log_fd;
	...;
} lxc_attach_options_t;

struct lxc_snapshot {
	char *name;
	char *comment_pathname;
	char *timestamp;
	char *lxcpath;
	...;
};

/* csrc/liblxc.c: the loader and the exported functions */

int lxccopy_load(const char *file, char *reason, int size);
struct lxc_container *lxc_container_new(const char *name, const char *configpath);
int lxc_container_get(struct lxc_container *c);
int lxc_container_put(struct lxc_container *c);
int lxc_get_wait_states(const char **states);
const char *lxc_get_global_config_item(const char *key);
const char *lxc_get_version(void);
int list_defined_containers(const char *lxcpath, char ***names);
int list_active_containers(const char *lxcpath, char ***names);
int list_all_containers(const char *lxcpath, char ***names);
bool lxc_config_item_is_supported(const char *key);
bool lxc_has_api_extension(const char *extension);
int lxccopy_log_level(const char *level);

/* csrc/liblxc.c: the methods of struct lxc_container */

bool container_is_defined(struct lxc_container *c);
const char *container_state(struct lxc_container *c);
bool container_is_running(struct lxc_container *c);
bool container_freeze(struct lxc_container *c);
bool container_unfreeze(struct lxc_container *c);
pid_t container_init_pid(struct lxc_container *c);
bool container_load_config(struct lxc_container *c, const char *file);
bool container_start(struct lxc_container *c, int useinit, char *argv[]);
bool container_stop(struct lxc_container *c);
bool container_want_daemonize(struct lxc_container *c, bool state);
bool container_want_close_all_fds(struct lxc_container *c, bool state);
char *container_config_file_name(struct lxc_container *c);
bool container_wait(struct lxc_container *c, const char *state, int timeout);
bool container_set_config_item(struct lxc_container *c, const char *key, const char *value);
bool container_destroy(struct lxc_container *c);
bool container_save_config(struct lxc_container *c, const char *file);
bool container_rename(struct lxc_container *c, const char *newname);
bool container_reboot(struct lxc_container *c);
bool container_shutdown(struct lxc_container *c, int timeout);
void container_clear_config(struct lxc_container *c);
bool container_clear_config_item(struct lxc_container *c, const char *key);
int container_get_config_item(struct lxc_container *c, const char *key, char *value, int size);
char *container_get_running_config_item(struct lxc_container *c, const char *key);
int container_get_keys(struct lxc_container *c, const char *key, char *keys, int size);
char **container_get_interfaces(struct lxc_container *c);
char **container_get_ips(struct lxc_container *c, const char *interface, const char *family, int scope);
int container_get_cgroup_item(struct lxc_container *c, const char *key, char *value, int size);
bool container_set_cgroup_item(struct lxc_container *c, const char *key, const char *value);
const char *container_get_config_path(struct lxc_container *c);
bool container_set_config_path(struct lxc_container *c, const char *path);
struct lxc_container *container_clone(struct lxc_container *c, const char *newname, const char *lxcpath, int flags,
				      const char *bdevtype, uint64_t newsize, char **hookargs);
int container_console_getfd(struct lxc_container *c, int *ttynum, int *ptxfd);
int container_console(struct lxc_container *c, int ttynum, int stdinfd, int stdoutfd, int stderrfd, int escape);
int container_attach_run_wait(struct lxc_container *c, lxc_attach_options_t *options, const char *program,
			      char *argv[]);
int container_snapshot(struct lxc_container *c, const char *commentfile);
int container_snapshot_list(struct lxc_container *c, struct lxc_snapshot **snapshots);
void snapshot_list_free(struct lxc_snapshot *snapshots, int count);
bool container_snapshot_restore(struct lxc_container *c, const char *snapname, const char *newname);
bool container_snapshot_destroy(struct lxc_container *c, const char *snapname);
bool container_may_control(struct lxc_container *c);
bool container_add_device_node(struct lxc_container *c, const char *src, const char *dest);
bool container_remove_device_node(struct lxc_container *c, const char *src, const char *dest);
bool container_attach_interface(struct lxc_container *c, const char *dev, const char *dest);
bool container_detach_interface(struct lxc_container *c, const char *dev, const char *dest);
bool container_checkpoint(struct lxc_container *c, char *directory, bool stop, bool verbose);
bool container_restore(struct lxc_container *c, char *directory, bool verbose);
bool container_destroy_with_snapshots(struct lxc_container *c);
bool container_snapshot_destroy_all(struct lxc_container *c);
bool container_reboot2(struct lxc_container *c, int timeout);
int container_error_num(struct lxc_container *c);
int container_init_pidfd(struct lxc_container *c);
int container_devpts_fd(struct lxc_container *c);
int container_set_timeout(struct lxc_container *c, int timeout);

/* csrc/kernel.c */

#define RESOLVE_NO_XDEV ...
#define RESOLVE_NO_MAGICLINKS ...
#define RESOLVE_NO_SYMLINKS ...
#define RESOLVE_BENEATH ...
#define RESOLVE_IN_ROOT ...

int lxccopy_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);
int lxccopy_pidfd_open(pid_t pid);
int lxccopy_unshare_user(void);
int lxccopy_rename_new(const char *path, const char *new_path);
int lxccopy_unmount(const char *path);
int lxccopy_mount(const char *type, char *options[]);
int lxccopy_openpty(int devpts, int *primary, int *replica);

/* csrc/spawner.c */

#define LXCCOPY_STARTED ...
#define LXCCOPY_STEP_FDS ...
#define LXCCOPY_STEP_NAMESPACE ...
#define LXCCOPY_STEP_TMPFS ...
#define LXCCOPY_STEP_OVERLAY ...
#define LXCCOPY_STEP_LOAD ...
#define LXCCOPY_STEP_START ...
#define LXCCOPY_STEP_MONITOR ...
#define LXCCOPY_STEP_HELPER ...

struct lxccopy_plan {
	const char *name;
	const char *lxcpath;
	const char *log_level;
	int log_fd;
	int tmpfs_fd;
	const char *tmpfs_path;
	char **overlays;
	bool private_mounts;
	bool foreground;
	bool guarded;
	int ledger_fd;
	int directory_fd;
	bool remove;
	const char *lock_file;
	const char *kill_at;
	pid_t helper;
	int socket;
	pid_t guard;
	int guard_socket;
};

struct lxccopy_report {
	int step;
	int error;
	int init_pid;
	int monitor_pid;
};

struct lxccopy_end {
	struct lxccopy_report report;
	int monitor;
	char cgroups[8192];
};

bool lxccopy_sigchld_ignored(void);
void lxccopy_spawn(struct lxccopy_plan *plan);
void lxccopy_dismiss(struct lxccopy_plan *plan, bool tidy);
void lxccopy_finish(struct lxccopy_plan *plan, struct lxccopy_end *end);

/* csrc/command.c */

#define LXCCOPY_ENTERED ...
#define LXCCOPY_FAILED_ROOT ...
#define LXCCOPY_FAILED_CWD ...
#define LXCCOPY_FAILED_USER ...
#define LXCCOPY_FAILED_EXEC ...

struct lxccopy_command {
	char **argv;
	const char *cwd;
	int terminal;
	int outcome_fd;
	uint64_t root[2];
	bool as_user;
	uid_t uid;
	gid_t gid;
	gid_t *groups;
	size_t group_count;
};

void default_attach_options(lxc_attach_options_t *options);
int container_attach(struct lxc_container *c, struct lxccopy_command *command, lxc_attach_options_t *options,
		     pid_t *pid);

/* libc */

void free(void *pointer);
