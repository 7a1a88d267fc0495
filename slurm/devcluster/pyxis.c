/* srun --container-image=FOLDER --container-mounts=HOST:INSIDE,...: the options of NVIDIA's Pyxis that a profile uses,
 * for clusters in a box. A task then sees the image's folder as /, and in it what is mounted, and nothing else. */
#define _GNU_SOURCE
#include <sched.h>
#include <slurm/spank.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

SPANK_PLUGIN(pyxis, 1)

enum { IMAGE, MOUNTS };
static char *given[2];

static int note(int which, const char *value, int remote) {
  (void)remote;
  given[which] = strdup(value);
  return 0;
}

static struct spank_option options[] = {
    {"container-image", "FOLDER", "[devcluster] what tasks see as /", 1, IMAGE, note},
    {"container-mounts", "HOST:INSIDE[,...]", "[devcluster] what they see in it", 1, MOUNTS, note},
    SPANK_OPTIONS_TABLE_END};

int slurm_spank_init(spank_t spank, int count, char **words) {
  (void)count, (void)words;
  for (int i = 0; options[i].name; i++)
    if (spank_option_register(spank, &options[i]) != ESPANK_SUCCESS) return -1;
  return 0;
}

static int fail(const char *what) {
  slurm_error("pyxis: %s: %m", what);
  return -1;
}

static void make_folders(char *path) {
  for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    mkdir(path, 0755);
    *slash = '/';
  }
  mkdir(path, 0755);
}

static int show(char *pair) { /* HOST:INSIDE */
  char inside[8192], *colon = strchr(pair, ':');
  if (!colon) return fail(pair);
  *colon = '\0';
  snprintf(inside, sizeof inside, "%s%s", given[IMAGE], colon + 1);
  make_folders(inside);
  return mount(pair, inside, NULL, MS_BIND | MS_REC, NULL) ? fail(pair) : 0;
}

/* In the task, just before its program: still root. */
int slurm_spank_task_init_privileged(spank_t spank, int count, char **words) {
  (void)spank, (void)count, (void)words;
  if (!given[IMAGE]) return 0;
  if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) return fail("unshare");
  for (char *rest = given[MOUNTS], *pair; rest && (pair = strsep(&rest, ","));)
    if (show(pair)) return -1;
  if (chroot(given[IMAGE]) || chdir("/")) return fail(given[IMAGE]);
  mkdir("/tmp", 01777); /* where slurmstepd goes when the step's folder is not mounted */
  return 0;
}
