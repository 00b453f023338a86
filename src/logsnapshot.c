/*-------------------------------------------------------------------------
 *
 * logsnapshot.c
 *	  Stored transaction snapshots: text, and what they saw.
 *
 * A snapshot is stored, here and on the remote, in pg_snapshot's text form.
 * Its ids have their epoch, so they never wrap around.  It says what is new in
 * the log, see changelog.c: what the transactions wrote that it did not see as
 * committed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "logsnapshot.h"

/*
 * Make a snapshot of pg_snapshot's text form, in the current memory context.
 */
SynchroSnapshot *
synchro_snapshot_parse(const char *text)
{
	SynchroSnapshot *snapshot = palloc0(sizeof(SynchroSnapshot));
	const char *pos = text;
	char	   *end;
	int			allocated = 16;

	snapshot->xmin = strtou64(pos, &end, 10);
	if (*end != ':')
		goto invalid;
	pos = end + 1;
	snapshot->xmax = strtou64(pos, &end, 10);
	if (end == pos || *end != ':')
		goto invalid;
	pos = end + 1;
	snapshot->xip = palloc(sizeof(uint64) * allocated);
	while (*pos != '\0')
	{
		if (snapshot->nxip == allocated)
		{
			allocated *= 2;
			snapshot->xip = repalloc(snapshot->xip, sizeof(uint64) * allocated);
		}
		snapshot->xip[snapshot->nxip++] = strtou64(pos, &end, 10);
		if (end == pos || (*end != ',' && *end != '\0'))
			goto invalid;
		pos = *end == ',' ? end + 1 : end;
	}
	return snapshot;

invalid:
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("invalid snapshot \"%s\"", text)));
}

/*
 * Was a transaction that has committed since, or before, seen as committed by
 * the snapshot?
 */
bool
synchro_snapshot_has(const SynchroSnapshot *snapshot, uint64 xid)
{
	int			low = 0;
	int			high = snapshot->nxip;

	if (xid < snapshot->xmin)
		return true;
	if (xid >= snapshot->xmax)
		return false;
	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (snapshot->xip[middle] == xid)
			return false;
		if (snapshot->xip[middle] < xid)
			low = middle + 1;
		else
			high = middle;
	}
	return true;
}

/*
 * The active snapshot in pg_snapshot's text form, in which our own transaction is in
 * progress.  The server leaves that out, so by its form one that has an id counts as
 * seen as soon as a later one has ended, whatever it may yet log.
 */
char *
synchro_snapshot_current(void)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(pg_snapshot_out,
														   DirectFunctionCall1(pg_current_snapshot, (Datum) 0)));
	FullTransactionId own = GetTopFullTransactionIdIfAny();
	SynchroSnapshot *snapshot;
	StringInfoData with_own;
	int			before = 0;

	if (!FullTransactionIdIsValid(own))
		return text;
	snapshot = synchro_snapshot_parse(text);
	if (!synchro_snapshot_has(snapshot, U64FromFullTransactionId(own)))
		return text;
	while (before < snapshot->nxip && snapshot->xip[before] < U64FromFullTransactionId(own))
		before++;
	initStringInfo(&with_own);
	appendStringInfo(&with_own, UINT64_FORMAT ":" UINT64_FORMAT ":", snapshot->xmin, snapshot->xmax);
	for (int i = 0; i <= snapshot->nxip; i++)
		appendStringInfo(&with_own, "%s" UINT64_FORMAT, i > 0 ? "," : "",
						 i == before ? U64FromFullTransactionId(own) : snapshot->xip[i < before ? i : i - 1]);
	return with_own.data;
}
