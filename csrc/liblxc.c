/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loading liblxc at run time, and one function per liblxc call.
 *
 * We dlopen() instead of linking: the module then builds without lxc-dev, imports where liblxc is absent, and one
 * binary serves every liblxc from 3.1 on. cffi releases the GIL around each of these functions.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lxcabi.h"

/* The exported functions we use. Filled once by lxccopy_load(). */
static struct {
	int version[3];
	struct lxc_container *(*container_new)(const char *name, const char *configpath);
	int (*container_get)(struct lxc_container *c);
	int (*container_put)(struct lxc_container *c);
	int (*get_wait_states)(const char **states);
	const char *(*get_global_config_item)(const char *key);
	const char *(*get_version)(void);
	int (*list_defined_containers)(const char *lxcpath, char ***names, struct lxc_container ***cret);
	int (*list_active_containers)(const char *lxcpath, char ***names, struct lxc_container ***cret);
	int (*list_all_containers)(const char *lxcpath, char ***names, struct lxc_container ***cret);
	bool (*config_item_is_supported)(const char *key);
	bool (*has_api_extension)(const char *extension);
	int (*log_init)(struct lxc_log *log);
} liblxc;

/* The oldest release with LXC_CLONE_ALLOW_RUNNING, which lxc-copy -a needs. */
static const int oldest_version[3] = { 3, 1, 0 };

static bool liblxc_since(int major, int minor, int micro)
{
	const int wanted[3] = { major, minor, micro };

	for (int i = 0; i < 3; i++)
		if (liblxc.version[i] != wanted[i])
			return liblxc.version[i] > wanted[i];
	return true;
}

/*
 * Loads liblxc from the named file and checks that it is one we know how to call.
 * Returns 0, or -1 with a sentence about what is wrong in @reason. The caller makes sure that it runs once at a time.
 */
static int lxccopy_load(const char *file, char *reason, int size)
{
	struct {
		void **entry;
		const char *symbol;
	} const symbols[] = {
		{ (void **)&liblxc.get_version, "lxc_get_version" },
		{ (void **)&liblxc.container_new, "lxc_container_new" },
		{ (void **)&liblxc.container_get, "lxc_container_get" },
		{ (void **)&liblxc.container_put, "lxc_container_put" },
		{ (void **)&liblxc.get_wait_states, "lxc_get_wait_states" },
		{ (void **)&liblxc.get_global_config_item, "lxc_get_global_config_item" },
		{ (void **)&liblxc.list_defined_containers, "list_defined_containers" },
		{ (void **)&liblxc.list_active_containers, "list_active_containers" },
		{ (void **)&liblxc.list_all_containers, "list_all_containers" },
		{ (void **)&liblxc.config_item_is_supported, "lxc_config_item_is_supported" },
		{ (void **)&liblxc.has_api_extension, "lxc_has_api_extension" },
		{ (void **)&liblxc.log_init, "lxc_log_init" },
	};
	void *handle;

	handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
	if (!handle) {
		snprintf(reason, size, "%s", dlerror());
		return -1;
	}
	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
		*symbols[i].entry = dlsym(handle, symbols[i].symbol);
		if (!*symbols[i].entry) {
			snprintf(reason, size, "%s has no function %s", file, symbols[i].symbol);
			dlclose(handle);
			return -1;
		}
	}
	liblxc.version[0] = liblxc.version[1] = liblxc.version[2] = 0;
	if (sscanf(liblxc.get_version(), "%d.%d.%d", &liblxc.version[0], &liblxc.version[1], &liblxc.version[2]) < 2 ||
	    !liblxc_since(oldest_version[0], oldest_version[1], oldest_version[2])) {
		snprintf(reason, size, "%s is version %s, but 3.1 or later is needed", file, liblxc.get_version());
		dlclose(handle);
		return -1;
	}
	return 0;
}

/* Exported functions */

static struct lxc_container *lxc_container_new(const char *name, const char *configpath)
{
	return liblxc.container_new(name, configpath);
}

static int lxc_container_get(struct lxc_container *c)
{
	return liblxc.container_get(c);
}

static int lxc_container_put(struct lxc_container *c)
{
	return liblxc.container_put(c);
}

static int lxc_get_wait_states(const char **states)
{
	return liblxc.get_wait_states(states);
}

static const char *lxc_get_global_config_item(const char *key)
{
	return liblxc.get_global_config_item(key);
}

static const char *lxc_get_version(void)
{
	return liblxc.get_version();
}

static int list_defined_containers(const char *lxcpath, char ***names)
{
	return liblxc.list_defined_containers(lxcpath, names, NULL);
}

static int list_active_containers(const char *lxcpath, char ***names)
{
	return liblxc.list_active_containers(lxcpath, names, NULL);
}

static int list_all_containers(const char *lxcpath, char ***names)
{
	return liblxc.list_all_containers(lxcpath, names, NULL);
}

/* What liblxc logs in this process and its children, once for all; where it goes is each handle's own lxc.log.file. */
static int lxccopy_log_level(const char *level)
{
	struct lxc_log log = { .file = "none", .level = level, .prefix = "lxccopy", .quiet = true };

	return liblxc.log_init(&log);
}

static bool lxc_config_item_is_supported(const char *key)
{
	return liblxc.config_item_is_supported(key);
}

static bool lxc_has_api_extension(const char *extension)
{
	return liblxc.has_api_extension(extension);
}

/* Methods of the prefix that every version has, in the order of the structure */

static bool container_is_defined(struct lxc_container *c)
{
	return c->is_defined(c);
}

static const char *container_state(struct lxc_container *c)
{
	return c->state(c);
}

static bool container_is_running(struct lxc_container *c)
{
	return c->is_running(c);
}

static bool container_freeze(struct lxc_container *c)
{
	return c->freeze(c);
}

static bool container_unfreeze(struct lxc_container *c)
{
	return c->unfreeze(c);
}

static pid_t container_init_pid(struct lxc_container *c)
{
	return c->init_pid(c);
}

static bool container_load_config(struct lxc_container *c, const char *file)
{
	return c->load_config(c, file);
}

static bool container_start(struct lxc_container *c, int useinit, char *const argv[])
{
	return c->start(c, useinit, argv);
}

static bool container_stop(struct lxc_container *c)
{
	return c->stop(c);
}

static bool container_want_daemonize(struct lxc_container *c, bool state)
{
	return c->want_daemonize(c, state);
}

static bool container_want_close_all_fds(struct lxc_container *c, bool state)
{
	return c->want_close_all_fds(c, state);
}

static char *container_config_file_name(struct lxc_container *c)
{
	return c->config_file_name(c);
}

static bool container_wait(struct lxc_container *c, const char *state, int timeout)
{
	return c->wait(c, state, timeout);
}

static bool container_set_config_item(struct lxc_container *c, const char *key, const char *value)
{
	return c->set_config_item(c, key, value);
}

static bool container_destroy(struct lxc_container *c)
{
	return c->destroy(c);
}

static bool container_save_config(struct lxc_container *c, const char *file)
{
	return c->save_config(c, file);
}

static bool container_rename(struct lxc_container *c, const char *newname)
{
	return c->rename(c, newname);
}

static bool container_reboot(struct lxc_container *c)
{
	return c->reboot(c);
}

static bool container_shutdown(struct lxc_container *c, int timeout)
{
	return c->shutdown(c, timeout);
}

static void container_clear_config(struct lxc_container *c)
{
	c->clear_config(c);
}

static bool container_clear_config_item(struct lxc_container *c, const char *key)
{
	return c->clear_config_item(c, key);
}

static int container_get_config_item(struct lxc_container *c, const char *key, char *value, int size)
{
	return c->get_config_item(c, key, value, size);
}

static char *container_get_running_config_item(struct lxc_container *c, const char *key)
{
	return c->get_running_config_item(c, key);
}

static int container_get_keys(struct lxc_container *c, const char *key, char *keys, int size)
{
	return c->get_keys(c, key, keys, size);
}

static char **container_get_interfaces(struct lxc_container *c)
{
	return c->get_interfaces(c);
}

static char **container_get_ips(struct lxc_container *c, const char *interface, const char *family, int scope)
{
	return c->get_ips(c, interface, family, scope);
}

static int container_get_cgroup_item(struct lxc_container *c, const char *key, char *value, int size)
{
	return c->get_cgroup_item(c, key, value, size);
}

static bool container_set_cgroup_item(struct lxc_container *c, const char *key, const char *value)
{
	return c->set_cgroup_item(c, key, value);
}

static const char *container_get_config_path(struct lxc_container *c)
{
	return c->get_config_path(c);
}

static bool container_set_config_path(struct lxc_container *c, const char *path)
{
	return c->set_config_path(c, path);
}

static struct lxc_container *container_clone(struct lxc_container *c, const char *newname, const char *lxcpath,
					     int flags, const char *bdevtype, uint64_t newsize, char **hookargs)
{
	return c->clone(c, newname, lxcpath, flags, bdevtype, NULL, newsize, hookargs);
}

static int container_console_getfd(struct lxc_container *c, int *ttynum, int *ptxfd)
{
	return c->console_getfd(c, ttynum, ptxfd);
}

static int container_console(struct lxc_container *c, int ttynum, int stdinfd, int stdoutfd, int stderrfd, int escape)
{
	return c->console(c, ttynum, stdinfd, stdoutfd, stderrfd, escape);
}

static int container_attach_run_wait(struct lxc_container *c, lxc_attach_options_t *options, const char *program,
				     char *argv[])
{
	return c->attach_run_wait(c, options, program, (const char *const *)argv);
}

static int container_snapshot(struct lxc_container *c, const char *commentfile)
{
	return c->snapshot(c, commentfile);
}

static int container_snapshot_list(struct lxc_container *c, struct lxc_snapshot **snapshots)
{
	return c->snapshot_list(c, snapshots);
}

/* What snapshot_list() returned: each member frees its strings, the array is ours. */
static void snapshot_list_free(struct lxc_snapshot *snapshots, int count)
{
	for (int i = 0; i < count; i++)
		snapshots[i].free(&snapshots[i]);
	if (count > 0)
		free(snapshots);
}

static bool container_snapshot_restore(struct lxc_container *c, const char *snapname, const char *newname)
{
	return c->snapshot_restore(c, snapname, newname);
}

static bool container_snapshot_destroy(struct lxc_container *c, const char *snapname)
{
	return c->snapshot_destroy(c, snapname);
}

static bool container_may_control(struct lxc_container *c)
{
	return c->may_control(c);
}

static bool container_add_device_node(struct lxc_container *c, const char *src, const char *dest)
{
	return c->add_device_node(c, src, dest);
}

static bool container_remove_device_node(struct lxc_container *c, const char *src, const char *dest)
{
	return c->remove_device_node(c, src, dest);
}

static bool container_attach_interface(struct lxc_container *c, const char *dev, const char *dest)
{
	return c->attach_interface(c, dev, dest);
}

static bool container_detach_interface(struct lxc_container *c, const char *dev, const char *dest)
{
	return c->detach_interface(c, dev, dest);
}

static bool container_checkpoint(struct lxc_container *c, char *directory, bool stop, bool verbose)
{
	return c->checkpoint(c, directory, stop, verbose);
}

static bool container_restore(struct lxc_container *c, char *directory, bool verbose)
{
	return c->restore(c, directory, verbose);
}

static bool container_destroy_with_snapshots(struct lxc_container *c)
{
	return c->destroy_with_snapshots(c);
}

static bool container_snapshot_destroy_all(struct lxc_container *c)
{
	return c->snapshot_destroy_all(c);
}

static bool container_reboot2(struct lxc_container *c, int timeout)
{
	return c->reboot2(c, timeout);
}

static int container_error_num(struct lxc_container *c)
{
	return c->error_num;
}

/*
 * Later members. lxc_has_api_extension() does not know them, so the version decides; where it is too old, the answer is
 * -1 with errno ENOSYS, as from a kernel that lacks a system call.
 */

static int container_init_pidfd(struct lxc_container *c)
{
	if (!liblxc_since(4, 0, 5)) {
		errno = ENOSYS;
		return -1;
	}
	return c->init_pidfd(c);
}

static int container_devpts_fd(struct lxc_container *c)
{
	if (!liblxc_since(4, 0, 5)) {
		errno = ENOSYS;
		return -1;
	}
	return c->devpts_fd(c);
}

static int container_set_timeout(struct lxc_container *c, int timeout)
{
	if (!liblxc_since(6, 0, 0)) {
		errno = ENOSYS;
		return -1;
	}
	return c->set_timeout(c, timeout) ? 0 : -1;
}
