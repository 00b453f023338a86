/*-------------------------------------------------------------------------
 *
 * capturexact.c
 *	  Capture follows transactions: what their end logs, and what the end of a
 *	  subtransaction takes back.
 *
 * At PRE_COMMIT (PRE_PREPARE for two-phase commit) the buffer is written to
 * the log, in the same transaction.  That is after all deferred triggers and
 * holdable cursors (see CommitTransaction), so nothing that they write is
 * missed; should another extension's callback write rows still later, those
 * are written at once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "utils/memutils.h"

#include "applied.h"
#include "capturebuffer.h"
#include "capturexact.h"

PG_FUNCTION_INFO_V1(synchro_disable_log);
PG_FUNCTION_INFO_V1(synchro_enable_log);

/* where a subtransaction began; level 1 is the transaction itself */
typedef struct SubxactMark
{
	int			records;		/* its own begin there in the buffer */
	int			disabled;
} SubxactMark;

static SubxactMark *marks = NULL;	/* by nest level */
static int	nmarks = 0;
static int	disabled = 0;		/* depth of disable_log() */

/*
 * Are changes not to be logged just now?
 */
bool
synchro_capturexact_disabled(void)
{
	return disabled > 0;
}

/*
 * disable_log(): until enable_log() or the (sub)transaction's end, changes
 * are not logged.
 */
Datum
synchro_disable_log(PG_FUNCTION_ARGS)
{
	disabled++;
	PG_RETURN_VOID();
}

/*
 * enable_log(): take back one disable_log().
 */
Datum
synchro_enable_log(PG_FUNCTION_ARGS)
{
	if (disabled == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the log is not disabled"),
				 errhint("Each call of synchro.enable_log() takes back one synchro.disable_log() of the same transaction.")));
	disabled--;
	PG_RETURN_VOID();
}

static void
log_stamped(const SynchroApplied *applied, SynchroStamp stamp)
{
	SynchroTablePlace place = {0};
	StringInfo	record = synchro_buffer_begin(&place, applied->relation, applied->layout,
											  SYNCHRO_OP_UPDATE | SYNCHRO_KEY_STAMPED, GetCurrentCommandId(false));

	appendBinaryStringInfo(record, applied->identity.data, applied->identity.len);
	if (synchro_buffer_needs_more())
	{
		synchro_key_put_stamp(record, stamp);
		synchro_buffer_end();
	}
}

static void
log_refused(const SynchroRefused *refused)
{
	SynchroTablePlace place = {0};
	StringInfo	record = synchro_buffer_begin(&place, refused->relation, refused->layout,
											  SYNCHRO_OP_UPDATE | SYNCHRO_KEY_HAS_OLD | SYNCHRO_KEY_STAMPED | SYNCHRO_KEY_REFUSED,
											  GetCurrentCommandId(false));

	appendBinaryStringInfo(record, refused->identity.data, refused->identity.len);
	if (!synchro_buffer_needs_more())
		return;
	appendBinaryStringInfo(record, refused->name.data, refused->name.len);
	synchro_key_put_stamp(record, refused->stamp);
	synchro_buffer_end();
}

/*
 * Log rows which another node has pushed and that were as it wants them
 * already: what it sent is newer than what the log has.  And names that were
 * refused it.
 */
static void
log_touched(void)
{
	ListCell   *cell;

	foreach(cell, synchro_applied_refused())
		log_refused(lfirst(cell));
	for (SynchroApplied *applied = synchro_applied_next(true); applied != NULL;
		 applied = synchro_applied_next(false))
	{
		if (applied->touch && !applied->logged)
			log_stamped(applied, applied->stamp);
		if (applied->restated.at != 0)
		{
			/* it says more than the record before it: another stamp */
			synchro_buffer_repeat();
			log_stamped(applied, applied->restated);
		}
	}
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			log_touched();
			synchro_buffer_close();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			nmarks = 0;
			disabled = 0;
			synchro_buffer_forget();
			synchro_applied_forget();
			break;
		default:
			/* parallel workers run no triggers */
			break;
	}
}

/*
 * Where the records of the subtransaction of that level begin.
 */
static int
records_of(int level)
{
	return level > 1 && level <= nmarks ? marks[level - 1].records : 0;
}

static void
remember_mark(int level)
{
	static int	maxmarks = 0;

	if (level > maxmarks)
	{
		int			newmax = Max(16, level * 2);

		marks = marks == NULL ?
			MemoryContextAlloc(TopMemoryContext, sizeof(SubxactMark) * newmax) :
			repalloc(marks, sizeof(SubxactMark) * newmax);
		maxmarks = newmax;
	}
	marks[level - 1].records = synchro_buffer_begin_subxact();
	marks[level - 1].disabled = disabled;
	nmarks = level;
}

static void
at_subtransaction_event(SubXactEvent event, SubTransactionId mySubid,
						SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	switch (event)
	{
		case SUBXACT_EVENT_START_SUB:
			remember_mark(level);
			break;
		case SUBXACT_EVENT_PRE_COMMIT_SUB:
			synchro_buffer_precommit_subxact(records_of(level - 1));
			break;
		case SUBXACT_EVENT_COMMIT_SUB:
			synchro_buffer_commit_subxact(records_of(level - 1));
			if (level <= nmarks)
				disabled = Min(disabled, marks[level - 1].disabled);
			nmarks = level - 1;
			break;
		case SUBXACT_EVENT_ABORT_SUB:
			synchro_buffer_abort_subxact(level <= nmarks ? marks[level - 1].records : INT_MAX, records_of(level - 1));
			if (level <= nmarks)
				disabled = marks[level - 1].disabled;
			nmarks = level - 1;
			break;
		default:
			break;
	}
}

/*
 * Follow transactions; called once per backend when the library is loaded,
 * which may be in the middle of one.
 */
void
synchro_capturexact_init(void)
{
	RegisterXactCallback(at_transaction_event, NULL);
	RegisterSubXactCallback(at_subtransaction_event, NULL);
	for (int level = 1; level <= GetCurrentTransactionNestLevel(); level++)
		remember_mark(level);
}
