/*-------------------------------------------------------------------------
 *
 * divisionprefix.c
 *	  Of things that go only with those before them: the first with which they
 *	  do not go through.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "division.h"

/*
 * Have the first one parked with which the others fail: with those before it,
 * but not without it.  False if there is none.
 *
 * bad: so many do not go through; 0: not known, it is looked for in steps that
 * double.  Where one follows the other that takes a try or two for each, and none
 * with many rows; else log2(count) + 1 at most.  count: how many there are.
 */
bool
synchro_prefix_blame(SynchroPrefix *prefix, int64 bad, int64 count)
{
	int64		step = 1;

	for (;;)
	{
		int64		next;
		bool		blame;

		if (bad <= prefix->good)
		{
			if (prefix->good >= count)
				return false;
			next = Min(prefix->good + step, count);
			step *= 2;
		}
		else
			next = bad - prefix->good > 1 ? (prefix->good + bad) / 2 : bad;
		blame = next == prefix->good + 1;
		if (prefix->try(prefix->arg, next, blame))
			prefix->good = next;
		else if (blame)
			return true;
		else
			bad = next;
	}
}
