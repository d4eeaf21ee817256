/* Preloaded into the programs of a second build: variations that must not show
 * in its results. Directories are read in the reverse order, and the wall clock
 * is VARY_CLOCK_SECONDS ahead. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

/* An open directory: all its entries, returned from the last to the first. */
struct listing {
	DIR *dir;
	struct dirent **entries;
	size_t left;
	struct dirent *returned;
	struct listing *next;
};

static struct listing *listings;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *real(const char *name)
{
	void *f = dlsym(RTLD_NEXT, name);
	if (f == NULL)
		abort();
	return f;
}

static struct listing *find(DIR *dir)
{
	for (struct listing *l = listings; l != NULL; l = l->next)
		if (l->dir == dir)
			return l;
	return NULL;
}

static struct listing *fill(DIR *dir)
{
	struct dirent *(*next)(DIR *) = real("readdir64");
	struct listing *l = calloc(1, sizeof *l);
	struct dirent *e;
	if (l == NULL)
		abort();
	l->dir = dir;
	while ((e = next(dir)) != NULL) {
		l->entries = realloc(l->entries, (l->left + 1) * sizeof *l->entries);
		struct dirent *copy = l->entries == NULL ? NULL : malloc(e->d_reclen);
		if (copy == NULL)
			abort();
		l->entries[l->left++] = memcpy(copy, e, e->d_reclen);
	}
	l->next = listings;
	return listings = l;
}

static void forget(DIR *dir)
{
	pthread_mutex_lock(&lock);
	for (struct listing **p = &listings; *p != NULL; p = &(*p)->next) {
		struct listing *l = *p;
		if (l->dir != dir)
			continue;
		*p = l->next;
		while (l->left > 0)
			free(l->entries[--l->left]);
		free(l->returned);
		free(l->entries);
		free(l);
		break;
	}
	pthread_mutex_unlock(&lock);
}

struct dirent *readdir(DIR *dir)
{
	pthread_mutex_lock(&lock);
	struct listing *l = find(dir);
	if (l == NULL)
		l = fill(dir);
	free(l->returned);
	l->returned = l->left == 0 ? NULL : l->entries[--l->left];
	pthread_mutex_unlock(&lock);
	return l->returned;
}

/* Both are the same function on 64-bit machines. */
struct dirent64 *readdir64(DIR *dir) { return (struct dirent64 *)readdir(dir); }

void rewinddir(DIR *dir)
{
	forget(dir);
	((void (*)(DIR *))real("rewinddir"))(dir);
}

int closedir(DIR *dir)
{
	forget(dir);
	return ((int (*)(DIR *))real("closedir"))(dir);
}

static time_t shift(void)
{
	const char *s = getenv("VARY_CLOCK_SECONDS");
	return s == NULL ? 0 : atoll(s);
}

int clock_gettime(clockid_t id, struct timespec *t)
{
	static int (*next)(clockid_t, struct timespec *);
	if (next == NULL)
		next = (int (*)(clockid_t, struct timespec *))real("clock_gettime");
	int result = next(id, t);
	if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		t->tv_sec += shift();
	return result;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
	struct timespec now;
	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return -1;
	t->tv_sec = now.tv_sec;
	t->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *t)
{
	struct timespec now;
	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return -1;
	if (t != NULL)
		*t = now.tv_sec;
	return now.tv_sec;
}
