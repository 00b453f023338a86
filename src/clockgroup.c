/*-------------------------------------------------------------------------
 *
 * clockgroup.c
 *	  Whose clock is the group's, and how far ours is from it.
 *
 * Of the nodes that know each other, the one with the smallest id is the
 * reference: its clock is common time.  Each node knows which reference it
 * has heard of, over how many others (its stratum), and what to add to its own
 * clock.  Whenever two nodes meet, each offers what it knows to the other, who
 * takes it if that leads to a smaller reference, or to the same on a shorter
 * way; from a node on the way it takes the newer measurements, too, since
 * clocks drift.  As time is only taken from a lower stratum, it goes round in
 * no circle.
 *
 * The rest here needs SQL; stamps themselves do not, see clock.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "compat.h"
#include "localsql.h"
#include "settings.h"

/*
 * How much a clock may drift against another, in millionths.  Servers are kept
 * in time by NTP, which corrects by up to 500, but hardly ever by more than
 * this for long.
 */
#define DRIFT	50

/* what synchro_clock_clamp() goes by */
static struct
{
	uint64		txid;			/* 0: the clock was never set back */
	TimestampTz to;
	TimestampTz from;
}			set_back;

static void
copy_uuid(char *to, int column)
{
	const char *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);

	strlcpy(to, value != NULL ? value : "", SYNCHRO_UUID_TEXT);
}

static int64
spi_int64(int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

/*
 * Read what we know; needs a scope.  locked: nobody else is to change it
 * before the transaction's end.  False if this database has no identity, or
 * two of them after a restore.
 */
static bool
read_clock(SynchroClock *clock, TimestampTz *measured_at, bool locked)
{
	if (synchro_sql_run(psprintf("SELECT id, coalesce(clock_reference, id), clock_stratum::bigint, clock_uncertainty, clock_measured_at"
								 " FROM synchro.node_identity%s", locked ? " FOR UPDATE" : ""),
						0, NULL, NULL, NULL) != 1)
		return false;
	copy_uuid(clock->node, 1);
	copy_uuid(clock->reference, 2);
	clock->stratum = (int) spi_int64(3);
	clock->uncertainty = spi_int64(4);
	*measured_at = (TimestampTz) spi_int64(5);
	clock->offset = synchro_clock_offset();
	return true;
}

/*
 * What this node knows of the group's clock.  Needs a transaction.  False if
 * it is not known who this node is.
 */
bool
synchro_clock_get(SynchroClock *clock)
{
	SynchroSqlScope scope;
	TimestampTz measured_at;
	bool		known;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	known = read_clock(clock, &measured_at, false);
	synchro_sql_close(&scope);
	return known;
}

/*
 * Does a new measurement say more than an earlier one?  If it is the better
 * one, after all that the clocks may have drifted, or if it disproves the
 * other.  Else it is the network's noise, which stamps had better not follow.
 */
bool
synchro_clock_is_fresh(int64 offset, int64 uncertainty, TimestampTz measured_at,
					   int64 new_offset, int64 new_uncertainty)
{
	int64		age = Max(GetCurrentTimestamp() - measured_at, 0);
	int64		aged = uncertainty + age / (1000 * 1000) * DRIFT;

	return new_uncertainty < aged || i64abs(new_offset - offset) > aged + new_uncertainty;
}

/*
 * Go by another clock from now on.  Needs a scope, and the lock of
 * read_clock().
 *
 * Other backends see the new offset before we commit; if we do not, the same
 * is measured again at the next contact.
 */
static void
adopt(const SynchroClock *now, const char *reference, int stratum, int64 offset, int64 uncertainty)
{
	bool		far_back = now->offset - offset > (int64) synchro_max_clock_uncertainty * 1000;
	Oid			types[] = {TEXTOID, INT4OID, INT8OID, TIMESTAMPTZOID, TEXTOID, TIMESTAMPTZOID};
	Datum		values[lengthof(types)];
	bool		nulls[lengthof(types)] = {0};
	TimestampTz local;

	if (far_back)
		synchro_clock_set_back(offset);
	else
		synchro_clock_set_offset(offset);
	local = GetCurrentTimestamp();
	values[0] = CStringGetTextDatum(reference);
	values[1] = Int32GetDatum(stratum);
	values[2] = Int64GetDatum(uncertainty);
	values[3] = TimestampTzGetDatum(local);
	synchro_sql_run("UPDATE synchro.node_identity SET clock_reference = nullif($1::uuid, id),"
					" clock_stratum = $2, clock_uncertainty = $3, clock_measured_at = $4",
					4, types, values, NULL);
	if (!far_back)
		return;

	/*
	 * Whoever was given a stamp by the old offset has an id smaller than the
	 * next one: the id is older than the stamp.
	 */
	values[3] = TimestampTzGetDatum(local + offset);
	values[4] = CStringGetTextDatum(psprintf(UINT64_FORMAT,
											 U64FromFullTransactionId(ReadNextFullTransactionId())));
	values[5] = TimestampTzGetDatum(local + now->offset);
	synchro_sql_run("UPDATE synchro.node_identity SET clock_set_at = $4, clock_set_xid = $5::xid8,"
					" clock_set_from = greatest(clock_set_from, $6)",
					lengthof(types), types, values, nulls);
	ereport(LOG,
			(errmsg("synchro has set common time back by %.3f seconds", (now->offset - offset) / 1000000.0),
			 errdetail("Node %s is the reference now.", reference)));
}

/*
 * Another node offers what it knows; take it if it is better than what we
 * have.  Needs a transaction.
 *
 * reference, stratum: the other node's.  offset, uncertainty: what ours would
 * be.
 */
void
synchro_clock_offer(const char *reference, int stratum, int64 offset, int64 uncertainty)
{
	SynchroSqlScope scope;
	SynchroClock clock;
	TimestampTz measured_at;
	int			order;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);

	/* most offers change nothing: they lock nothing, either */
	for (int locked = 0; locked <= 1; locked++)
	{
		if (!read_clock(&clock, &measured_at, locked == 1))
			break;

		/* in their canonical form, texts of uuids are in the order of uuids */
		order = strcmp(reference, clock.reference);
		if (order > 0 || (order == 0 && stratum >= clock.stratum) ||
			strcmp(reference, clock.node) == 0)
			break;
		if (order == 0 && stratum + 1 == clock.stratum &&
			!synchro_clock_is_fresh(clock.offset, clock.uncertainty, measured_at, offset, uncertainty))
			break;
		if (locked == 1)
			adopt(&clock, reference, stratum + 1, offset, uncertainty);
	}
	synchro_sql_close(&scope);
}

/*
 * Let this node be its own reference, as if it had never met another.  Needs a
 * transaction.
 */
void
synchro_clock_forget(void)
{
	SynchroSqlScope scope;
	SynchroClock clock;
	TimestampTz measured_at;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (read_clock(&clock, &measured_at, true))
		adopt(&clock, clock.node, 0, 0, 0);
	synchro_sql_close(&scope);
}

/*
 * Load what synchro_clock_clamp() goes by: once for each reading of the log,
 * after the snapshot has been taken.  Needs a transaction.
 */
void
synchro_clock_load(void)
{
	SynchroSqlScope scope;

	memset(&set_back, 0, sizeof(set_back));
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (synchro_sql_run("SELECT clock_set_xid, clock_set_at, clock_set_from FROM synchro.node_identity"
						" WHERE clock_set_xid IS NOT NULL", 0, NULL, NULL, NULL) == 1)
	{
		set_back.txid = (uint64) spi_int64(1);
		set_back.to = (TimestampTz) spi_int64(2);
		set_back.from = (TimestampTz) spi_int64(3);
	}
	synchro_sql_close(&scope);
}

/*
 * When a change of this node's own was made, in the common time of now.
 *
 * If the clock was set far back since, stamps of before are in the future, or
 * were when it happened: such a change counts as made then.  Only stamps that
 * the old common time can have given are meant: a transaction that was open
 * then and ended much later has a good one.
 */
TimestampTz
synchro_clock_clamp(uint64 txid, TimestampTz stamp)
{
	if (txid < set_back.txid && stamp > set_back.to && stamp <= set_back.from)
		return set_back.to;
	return stamp;
}
