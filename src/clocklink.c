/*-------------------------------------------------------------------------
 *
 * clocklink.c
 *	  The remote's clock: measured, and common time agreed upon with it.
 *
 * Only where the remote runs synchro, too, and lets us call what is meant for
 * other nodes.  The remote is asked for its time; that was read somewhere
 * between our sending and our receiving, so taking it for the middle is wrong
 * by half the round trip at most.  Of several round trips the shortest counts.
 *
 * Then each side tells the other what it knows of common time, in one call,
 * and whoever has the worse clock takes the other's (clockgroup.c).  So it
 * does not matter which of the two pushes, and a group needs no links but
 * those that it has.
 *
 * Measured is at connect and then with batches, not oftener than every
 * MEASURE_INTERVAL; never while there is nothing to push.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "clocklink.h"
#include "compat.h"
#include "localsql.h"
#include "settings.h"

#define MEASURE_INTERVAL	(30 * 1000) /* ms */

/* round trips at connect, and at most where one is too slow later */
#define ROUND_TRIPS		5

#define PEER_CLOCK		"synchro.peer_clock(uuid, uuid, integer, bigint, bigint)"

/* columns of what PEER_CLOCK returns */
enum
{
	PEER_NODE, PEER_REFERENCE, PEER_STRATUM, PEER_OFFSET, PEER_UNCERTAINTY
};

/*
 * May we call the remote's function?  Once per connection.
 */
static bool
remote_has_clock(SynchroLink *link)
{
	SynchroLinkClock *clock = &link->clock;

	/* somebody else's function of that name is not to be called */
	if (link->peer_node == NULL)
		return false;
	if (!clock->asked)
	{
		SynchroRows *rows = synchro_remote_query(link->remote,
												 "SELECT has_function_privilege(to_regprocedure('" PEER_CLOCK "')::oid, 'EXECUTE')",
												 0, NULL);
		const char *value = synchro_nullable(rows, 0, 0);

		clock->there = value != NULL && value[0] == 't';
		clock->asked = true;
	}
	return clock->there;
}

/*
 * Measure the remote's clock by the shortest of some round trips.
 *
 * rounds: how many at least; more while that is too slow.
 */
static void
measure(SynchroLink *link, int rounds, int64 *difference, int64 *uncertainty)
{
	*uncertainty = PG_INT64_MAX;
	*difference = 0;
	for (int i = 0; i < ROUND_TRIPS; i++)
	{
		TimestampTz sent;
		TimestampTz received;
		SynchroRows *rows;
		int64		there;

		if (i >= rounds && *uncertainty <= (int64) synchro_max_clock_uncertainty * 1000)
			break;
		sent = GetCurrentTimestamp();
		rows = synchro_remote_query(link->remote,
									"SELECT ((extract(epoch FROM clock_timestamp()) - 946684800) * 1000000)::bigint",
									0, NULL);
		received = GetCurrentTimestamp();
		there = pg_strtoint64(synchro_value(rows, 0, 0));

		/* a clock that was set back meanwhile; + 1: it counts whole ones */
		if (received < sent || (received - sent) / 2 + 1 >= *uncertainty)
			continue;
		*uncertainty = (received - sent) / 2 + 1;
		*difference = there - (sent + (received - sent) / 2);
	}
}

static void
refuse(const char *message, int64 uncertainty)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s", message),
			 errdetail("It is known to within %.3f seconds only; synchro.max_clock_uncertainty is %.3f seconds.",
					   uncertainty / 1000000.0, synchro_max_clock_uncertainty / 1000.0),
			 errhint("Of two changes of a row the newer one could not be told. Find out why the connection is slow, or raise synchro.max_clock_uncertainty.")));
}

/*
 * May the remote's owner let it set our common time, as what it says of it would?  Who
 * may not call peer_clock() here could say the same by a remote of his own.  In a local
 * transaction.
 */
static bool
is_trusted(const SynchroLink *link)
{
	SynchroSqlScope scope;
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(link->target->owner)};
	bool		trusted;

	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	trusted = synchro_sql_run("SELECT WHERE pg_catalog.has_function_privilege($1, '" PEER_CLOCK "', 'EXECUTE')",
							  lengthof(types), types, values, NULL) == 1;
	synchro_sql_close(&scope);
	return trusted;
}

/*
 * Note the measurement, and offer the remote's clock to our own node.  What
 * the remote knows of common time is in rows; it may know nothing.
 */
static void
take_clock(SynchroLink *link, const SynchroRows *rows, SynchroClock *own)
{
	MemoryContext context = CurrentMemoryContext;
	SynchroLinkClock *clock = &link->clock;
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, TEXTOID, INT8OID, INT8OID};
	Datum		values[lengthof(types)];
	bool		nulls[lengthof(types)] = {0};
	const char *node = synchro_nullable(rows, 0, PEER_NODE);

	synchro_local_begin("synchro: keeping the clock");
	synchro_local_durable(false);
	values[0] = CStringGetTextDatum(link->target->name);
	nulls[1] = node == NULL;
	values[1] = nulls[1] ? (Datum) 0 : CStringGetTextDatum(node);
	values[2] = Int64GetDatum(clock->difference);
	values[3] = Int64GetDatum(clock->uncertainty);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("UPDATE synchro.remote_state SET node = $2::uuid, clock_offset = $3, clock_uncertainty = $4"
					" WHERE server = $1::name", lengthof(types), types, values, nulls);
	synchro_sql_close(&scope);

	/* a copy of ourselves is not another node */
	if (node != NULL && strcmp(node, own->node) != 0)
		synchro_clock_offer(synchro_value(rows, 0, PEER_REFERENCE),
							pg_strtoint32(synchro_value(rows, 0, PEER_STRATUM)),
							clock->difference + pg_strtoint64(synchro_value(rows, 0, PEER_OFFSET)),
							clock->uncertainty + pg_strtoint64(synchro_value(rows, 0, PEER_UNCERTAINTY)));
	if (synchro_clock_get(own))
		clock->own_uncertainty = own->uncertainty;
	synchro_local_commit();
	MemoryContextSwitchTo(context);
}

/*
 * Measure, tell the remote, and hear from it.
 */
static void
agree(SynchroLink *link, int rounds)
{
	SynchroLinkClock *clock = &link->clock;
	SynchroClock own;
	SynchroRows *rows;
	const char *params[5];
	int64		difference;
	int64		uncertainty;
	bool		known;

	measure(link, rounds, &difference, &uncertainty);
	if (!clock->measured ||
		synchro_clock_is_fresh(clock->difference, clock->uncertainty, clock->measured_at,
							   difference, uncertainty))
	{
		clock->difference = difference;
		clock->uncertainty = uncertainty;
		clock->measured_at = GetCurrentTimestamp();
		clock->measured = true;
	}
	clock->tried_at = GetCurrentTimestamp();
	if (clock->uncertainty > (int64) synchro_max_clock_uncertainty * 1000)
		refuse(psprintf("clock of remote \"%s\" is not known well enough", link->target->name),
			   clock->uncertainty);

	synchro_local_begin("synchro: reading the clock");
	if (!is_trusted(link))
	{
		const char *role = quote_identifier(GetUserNameFromId(link->target->owner, false));

		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("remote \"%s\" runs synchro, too, and role %s may not let it set this node's common time", link->target->name, role),
				 errhint("Have an administrator run here: GRANT EXECUTE ON FUNCTION " PEER_CLOCK " TO %s.", role)));
	}
	known = synchro_clock_get(&own);
	synchro_local_commit();
	if (!known)
		return;
	params[0] = own.node;
	params[1] = own.reference;
	params[2] = psprintf("%d", own.stratum);
	params[3] = psprintf(INT64_FORMAT, own.offset - clock->difference);
	params[4] = psprintf(INT64_FORMAT, own.uncertainty + clock->uncertainty);
	rows = synchro_remote_query(link->remote,
								"SELECT own_node, own_reference, own_stratum, own_offset, own_uncertainty"
								" FROM synchro.peer_clock($1, $2, $3, $4, $5)", 5, params);
	take_clock(link, rows, &own);
	if (clock->own_uncertainty > (int64) synchro_max_clock_uncertainty * 1000)
		refuse("clock of this node is not known well enough to its group", clock->own_uncertainty);
}

static void
agree_in_context(SynchroLink *link, int rounds)
{
	MemoryContext context;
	MemoryContext old;

	if (!remote_has_clock(link))
		return;
	context = AllocSetContextCreate(CurrentMemoryContext, "synchro clock", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	agree(link, rounds);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/*
 * Compare clocks with a remote that we have just connected to.  An error if
 * that cannot be done well enough.  Not to be called in a local transaction.
 */
void
synchro_clocklink_measure(SynchroLink *link)
{
	agree_in_context(link, ROUND_TRIPS);
}

/*
 * The same before a batch, if the last time is not too recent.
 */
void
synchro_clocklink_refresh(SynchroLink *link)
{
	TimestampTz now = GetCurrentTimestamp();

	if (i64abs(now - link->clock.tried_at) >= (int64) MEASURE_INTERVAL * 1000)
		agree_in_context(link, 1);
}

/*
 * How far apart a stamp of here and one of there may be, in microseconds,
 * though they were given at the same time; 0 if the remote gives none.
 */
int64
synchro_clocklink_uncertainty(const SynchroLink *link)
{
	return link->clock.measured ? link->clock.own_uncertainty + link->clock.uncertainty : 0;
}
