/*
 * For 050_clocks.pl, by LD_PRELOAD: a server whose clock is shifted, while it
 * runs, by the microseconds that stand in the file SHIFTED_CLOCK.
 *
 * CLOCK_MONOTONIC and all waits stay as they are.  libfaketime would be more
 * than is needed, and what PostgreSQL 15 forks out of a signal handler, as it
 * does its background workers, has the real time under it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *shift;

__attribute__((constructor))
static void
map_shift(void)
{
	const char *file = getenv("SHIFTED_CLOCK");
	int			fd = file != NULL ? open(file, O_RDONLY | O_CLOEXEC) : -1;
	void	   *map = fd >= 0 ? mmap(NULL, sizeof(*shift), PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (map == MAP_FAILED)
		abort();
	close(fd);
	shift = map;
}

int
clock_gettime(clockid_t clock, struct timespec *now)
{
	int			rc = (int) syscall(SYS_clock_gettime, clock, now);

	if (rc == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
	{
		int64_t		ns = now->tv_nsec + *shift % 1000000 * 1000;

		now->tv_sec += *shift / 1000000;
		if (ns < 0 || ns >= 1000000000)
			now->tv_sec += ns < 0 ? -1 : 1;
		now->tv_nsec = (ns + 1000000000) % 1000000000;
	}
	return rc;
}

int
gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec ts;
	int			rc = clock_gettime(CLOCK_REALTIME, &ts);

	now->tv_sec = ts.tv_sec;
	now->tv_usec = ts.tv_nsec / 1000;
	return rc;
}

time_t
time(time_t *now)
{
	struct timespec ts;

	(void) clock_gettime(CLOCK_REALTIME, &ts);
	if (now != NULL)
		*now = ts.tv_sec;
	return ts.tv_sec;
}
