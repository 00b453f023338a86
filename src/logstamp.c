/*-------------------------------------------------------------------------
 *
 * logstamp.c
 *	  When and where the changes of log entries were first made.
 *
 * A change's stamp is the time of its transaction's commit in the group's
 * time, and the node where it was made.  The log has it in three ways: in the
 * entry itself, if the change came from another node; in a row of the
 * transaction's own that only gives its commit time, if it had to write some
 * of its rows early; else it is the time of the log's row.  Which of them it
 * is shows when the whole log has been scanned: so the scan notes stamp rows,
 * and asks for stamps at its end.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/hsearch.h"

#include "logstamp.h"

typedef struct CommitTime
{
	uint64		txid;			/* hash key */
	TimestampTz at;
} CommitTime;

struct SynchroStamps
{
	HTAB	   *commits;		/* of CommitTime */
	SynchroSources *sources;
};

/*
 * For one scan of the log; lives in the current memory context.
 */
SynchroStamps *
synchro_stamps_create(void)
{
	SynchroStamps *stamps = palloc0(sizeof(SynchroStamps));
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(uint64);
	ctl.entrysize = sizeof(CommitTime);
	ctl.hcxt = CurrentMemoryContext;
	stamps->commits = hash_create("synchro commit times", 16, &ctl,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	stamps->sources = synchro_sources_load();
	return stamps;
}

/*
 * Is a row of the log a stamp row?  Then it is noted, and has no keys.
 */
bool
synchro_stamps_note(SynchroStamps *stamps, const SynchroLogRow *row)
{
	CommitTime *commit;

	if (row->relation != SYNCHRO_STAMP_RELATION)
		return false;
	commit = hash_search(stamps->commits, &row->txid, HASH_ENTER, NULL);
	commit->at = row->changed_at;
	return true;
}

/*
 * The stamp of an entry.
 *
 * txid, logged_at: of its row.  stamp: its own, if it has one.
 */
SynchroStamp
synchro_stamps_of(const SynchroStamps *stamps, uint64 txid, TimestampTz logged_at,
				  SynchroStamp stamp)
{
	CommitTime *commit;

	if (stamp.at != 0)
		return stamp;
	commit = hash_search(stamps->commits, &txid, HASH_FIND, NULL);
	stamp.at = commit != NULL ? commit->at : logged_at;
	return stamp;
}

/*
 * All sources; they live as long as the stamps' memory context.
 */
SynchroSources *
synchro_stamps_sources(const SynchroStamps *stamps)
{
	return stamps->sources;
}

/*
 * Where a change was made, and who brought it.
 */
const SynchroSource *
synchro_stamps_source(const SynchroStamps *stamps, SynchroStamp stamp)
{
	return synchro_source_find(stamps->sources, stamp.source);
}

/*
 * Which change is newer?  The pair of time and origin decides, on every node
 * alike.
 */
int
synchro_stamps_compare(const SynchroStamps *stamps, SynchroStamp a, SynchroStamp b)
{
	if (a.at != b.at)
		return a.at < b.at ? -1 : 1;
	if (a.source == b.source)
		return 0;
	return synchro_uuid_compare(&synchro_stamps_source(stamps, a)->origin,
								&synchro_stamps_source(stamps, b)->origin);
}
