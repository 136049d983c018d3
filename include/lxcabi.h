/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The part of liblxc's binary interface that lxccopy_ffi relies on, in our own words, so that building needs neither
 * lxc-dev nor liblxc itself.
 *
 * liblxc only ever appends to these structures (with one exception, named below), and its SONAME has been liblxc.so.1
 * throughout. Every offset here is compared with the real headers by tests/binding/test_abi.py.
 */
#ifndef LXCCOPY_LXCABI_H
#define LXCCOPY_LXCABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct lxc_container;
struct lxc_lock;
struct lxc_conf;
struct lxc_mount;
struct bdev_specs;
struct migrate_opts;
struct lxc_console_log;

/* What clone() may do, from lxccontainer.h. */
enum {
	LXC_CLONE_KEEPNAME = 1 << 0,
	LXC_CLONE_KEEPMACADDR = 1 << 1,
	LXC_CLONE_SNAPSHOT = 1 << 2,
	LXC_CLONE_KEEPBDEVTYPE = 1 << 3,
	LXC_CLONE_MAYBE_SNAPSHOT = 1 << 4,
	LXC_CLONE_ALLOW_RUNNING = 1 << 6,
};

/* How attach() enters a container, from attach_options.h. */
enum {
	LXC_ATTACH_MOVE_TO_CGROUP = 0x00000001,
	LXC_ATTACH_DROP_CAPABILITIES = 0x00000002,
	LXC_ATTACH_SET_PERSONALITY = 0x00000004,
	LXC_ATTACH_LSM_EXEC = 0x00000008,
	LXC_ATTACH_REMOUNT_PROC_SYS = 0x00010000,
	LXC_ATTACH_NO_NEW_PRIVS = 0x00040000,
	LXC_ATTACH_DEFAULT = 0x0000FFFF,
};

typedef enum lxc_attach_env_policy_t {
	LXC_ATTACH_KEEP_ENV = 0,
	LXC_ATTACH_CLEAR_ENV = 1,
} lxc_attach_env_policy_t;

typedef struct lxc_groups_t {
	size_t size;
	gid_t *list;
} lxc_groups_t;

/* lsm_label and groups came with 4.0.7; liblxc reads them only when a flag of theirs is set, so the long form is safe
 * to hand to every version. */
typedef struct lxc_attach_options_t {
	int attach_flags;
	int namespaces;
	long personality;
	char *initial_cwd;
	uid_t uid;
	gid_t gid;
	lxc_attach_env_policy_t env_policy;
	char **extra_env_vars;
	char **extra_keep_env;
	int stdin_fd;
	int stdout_fd;
	int stderr_fd;
	int log_fd;
	char *lsm_label;
	lxc_groups_t groups;
} lxc_attach_options_t;

typedef int (*lxc_attach_exec_t)(void *payload);

struct lxc_snapshot {
	char *name;
	char *comment_pathname;
	char *timestamp;
	char *lxcpath;
	void (*free)(struct lxc_snapshot *s);
};

struct lxc_container {
	/* The 66 members every liblxc since 3.0 has. */
	char *name;
	char *configfile;
	char *pidfile;
	struct lxc_lock *slock;
	struct lxc_lock *privlock;
	int numthreads;
	struct lxc_conf *lxc_conf;
	char *error_string;
	int error_num;
	bool daemonize;
	char *config_path;
	bool (*is_defined)(struct lxc_container *c);
	const char *(*state)(struct lxc_container *c);
	bool (*is_running)(struct lxc_container *c);
	bool (*freeze)(struct lxc_container *c);
	bool (*unfreeze)(struct lxc_container *c);
	pid_t (*init_pid)(struct lxc_container *c);
	bool (*load_config)(struct lxc_container *c, const char *alt_file);
	bool (*start)(struct lxc_container *c, int useinit, char *const argv[]);
	bool (*startl)(struct lxc_container *c, int useinit, ...);
	bool (*stop)(struct lxc_container *c);
	bool (*want_daemonize)(struct lxc_container *c, bool state);
	bool (*want_close_all_fds)(struct lxc_container *c, bool state);
	char *(*config_file_name)(struct lxc_container *c);
	bool (*wait)(struct lxc_container *c, const char *state, int timeout);
	bool (*set_config_item)(struct lxc_container *c, const char *key, const char *value);
	bool (*destroy)(struct lxc_container *c);
	bool (*save_config)(struct lxc_container *c, const char *alt_file);
	bool (*create)(struct lxc_container *c, const char *t, const char *bdevtype, struct bdev_specs *specs,
		       int flags, char *const argv[]);
	bool (*createl)(struct lxc_container *c, const char *t, const char *bdevtype, struct bdev_specs *specs,
			int flags, ...);
	bool (*rename)(struct lxc_container *c, const char *newname);
	bool (*reboot)(struct lxc_container *c);
	bool (*shutdown)(struct lxc_container *c, int timeout);
	void (*clear_config)(struct lxc_container *c);
	bool (*clear_config_item)(struct lxc_container *c, const char *key);
	int (*get_config_item)(struct lxc_container *c, const char *key, char *retv, int inlen);
	char *(*get_running_config_item)(struct lxc_container *c, const char *key);
	int (*get_keys)(struct lxc_container *c, const char *key, char *retv, int inlen);
	char **(*get_interfaces)(struct lxc_container *c);
	char **(*get_ips)(struct lxc_container *c, const char *interface, const char *family, int scope);
	int (*get_cgroup_item)(struct lxc_container *c, const char *subsys, char *retv, int inlen);
	bool (*set_cgroup_item)(struct lxc_container *c, const char *subsys, const char *value);
	const char *(*get_config_path)(struct lxc_container *c);
	bool (*set_config_path)(struct lxc_container *c, const char *path);
	struct lxc_container *(*clone)(struct lxc_container *c, const char *newname, const char *lxcpath, int flags,
				       const char *bdevtype, const char *bdevdata, uint64_t newsize, char **hookargs);
	int (*console_getfd)(struct lxc_container *c, int *ttynum, int *ptxfd);
	int (*console)(struct lxc_container *c, int ttynum, int stdinfd, int stdoutfd, int stderrfd, int escape);
	int (*attach)(struct lxc_container *c, lxc_attach_exec_t exec_function, void *exec_payload,
		      lxc_attach_options_t *options, pid_t *attached_process);
	int (*attach_run_wait)(struct lxc_container *c, lxc_attach_options_t *options, const char *program,
			       const char *const argv[]);
	int (*attach_run_waitl)(struct lxc_container *c, lxc_attach_options_t *options, const char *program,
				const char *arg, ...);
	int (*snapshot)(struct lxc_container *c, const char *commentfile);
	int (*snapshot_list)(struct lxc_container *c, struct lxc_snapshot **snapshots);
	bool (*snapshot_restore)(struct lxc_container *c, const char *snapname, const char *newname);
	bool (*snapshot_destroy)(struct lxc_container *c, const char *snapname);
	bool (*may_control)(struct lxc_container *c);
	bool (*add_device_node)(struct lxc_container *c, const char *src_path, const char *dest_path);
	bool (*remove_device_node)(struct lxc_container *c, const char *src_path, const char *dest_path);
	bool (*attach_interface)(struct lxc_container *c, const char *dev, const char *dst_dev);
	bool (*detach_interface)(struct lxc_container *c, const char *dev, const char *dst_dev);
	bool (*checkpoint)(struct lxc_container *c, char *directory, bool stop, bool verbose);
	bool (*restore)(struct lxc_container *c, char *directory, bool verbose);
	bool (*destroy_with_snapshots)(struct lxc_container *c);
	bool (*snapshot_destroy_all)(struct lxc_container *c);
	int (*migrate)(struct lxc_container *c, unsigned int cmd, struct migrate_opts *opts, unsigned int size);
	int (*console_log)(struct lxc_container *c, struct lxc_console_log *log);
	bool (*reboot2)(struct lxc_container *c, int timeout);

	/* Later members: never touched unless lxc_get_version() says they are there, see csrc/liblxc.c. */
	int (*mount)(struct lxc_container *c, const char *source, const char *target, const char *filesystemtype,
		     unsigned long mountflags, const void *data, struct lxc_mount *mnt);               /* 3.1 */
	int (*umount)(struct lxc_container *c, const char *target, unsigned long mountflags,
		      struct lxc_mount *mnt);                                                          /* 3.1 */
	int (*seccomp_notify_fd)(struct lxc_container *c);                                             /* 3.2 */
	/* 4.0.5 inserted this one before init_pidfd: 4.0.0 to 4.0.4 have another layout from here on. */
	int (*seccomp_notify_fd_active)(struct lxc_container *c);                                      /* 4.0.5 */
	int (*init_pidfd)(struct lxc_container *c);                                                    /* 4.0.5 */
	int (*devpts_fd)(struct lxc_container *c);                                                     /* 4.0.5 */
	int rcv_timeout;                                                                               /* 6.0 */
	bool (*set_timeout)(struct lxc_container *c, int timeout);                                     /* 6.0 */
};

/* Unchanged since 2.0. */
struct lxc_log {
	const char *name;
	const char *lxcpath;
	const char *file;
	const char *level;
	const char *prefix;
	bool quiet;
};

#endif
