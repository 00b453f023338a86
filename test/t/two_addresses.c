/*
 * For 043_hosts.pl, by LD_PRELOAD: the name two.addresses has two of them, as
 * names of services do that have a standby or a second line.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stddef.h>
#include <string.h>

typedef int (*Lookup) (const char *, const char *, const struct addrinfo *, struct addrinfo **);

int
getaddrinfo(const char *restrict name, const char *restrict service,
			const struct addrinfo *restrict hints, struct addrinfo **restrict result)
{
	Lookup		lookup = (Lookup) dlsym(RTLD_NEXT, "getaddrinfo");
	struct addrinfo *last;
	int			rc;

	if (name == NULL || strcmp(name, "two.addresses") != 0)
		return lookup(name, service, hints, result);
	rc = lookup("127.0.0.2", service, hints, result);
	if (rc != 0)
		return rc;
	for (last = *result; last->ai_next != NULL; last = last->ai_next)
		;
	return lookup("127.0.0.1", service, hints, &last->ai_next);
}
