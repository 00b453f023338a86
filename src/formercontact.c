/*-------------------------------------------------------------------------
 *
 * formercontact.c
 *	  How remotes were left that are to be met anew: the rows of
 *	  synchro.former_contact.
 *
 * confirm_node(), reset() and set_checkpoint() take away the tokens by which a
 * remote is known, in the middle of a batch perhaps.  By what is noted here it
 * can still be told at the next contact
 *
 * - as which node the remote was met last, however often confirm_node() was
 *	 called since;
 * - whether that batch got there: then it is not pushed again.  If it has not, it
 *	 is called off, see settle_position() in contact.c;
 * - which of the references that were stored for that node are ours.  Those of
 *	 the batch are, also where somebody else has pushed as that node since, the
 *	 database that this one is a copy of.
 *
 * The last is told by the end of the snapshot under which the batch was read,
 * which is kept with its token (remote_state.sent_before).  References are made
 * with the end of their batch's snapshot, and the ends of one database's
 * snapshots only grow.  So those up to it stand for rows as they were before the
 * copy was made; what the other one has read since ends above it.
 *
 * What is noted is what the pusher has kept last: the row is locked before it is
 * read, or the token of the next batch could be kept, and taken away, in
 * between, and nobody would know it any more.
 *
 * Version 1.0 notes nothing of this.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/xid8.h"

#include "formercontact.h"
#include "localsql.h"
#include "sequence.h"

/*
 * Is it noted how remotes were left?
 */
bool
synchro_former_is_noted(void)
{
	return OidIsValid(synchro_own_relation("former_contact", true));
}

/*
 * Note how a remote is left, before its tokens are taken away.  server: the one
 * whose position is moved by hand; NULL: all of them, as confirm_node() leaves
 * them, also those that a dump has brought.  What was noted before, and no
 * contact has come since, stays; of a remote that was added, and has not been
 * met since, there is nothing to be noted.  In a scope of the extension's owner.
 */
void
synchro_former_note(const char *server)
{
	Oid			type = TEXTOID;
	Datum		value = server != NULL ? CStringGetTextDatum(server) : (Datum) 0;
	bool		isnull = server == NULL;

	if (!synchro_former_is_noted())
		return;
	synchro_sql_run("SELECT FROM synchro.remote_state WHERE $1 IS NULL OR server = $1::name ORDER BY server FOR UPDATE",
					1, &type, &value, &isnull);
	synchro_sql_run("INSERT INTO synchro.former_contact (server, node, acknowledged, attempted, sent_before)"
					" SELECT r.server, " SYNCHRO_KNOWN_AS ", s.acknowledged, s.attempted, s.sent_before"
					" FROM synchro.remote r LEFT JOIN synchro.remote_state s ON s.server = r.server"
					" CROSS JOIN pg_control_system() c JOIN pg_database d ON d.datname = current_database()"
					" WHERE (s.server IS NULL OR s.acknowledged IS NOT NULL) AND ($1 IS NULL OR r.server = $1::name)"
					" ON CONFLICT (server) DO NOTHING",
					1, &type, &value, &isnull);
	if (server != NULL)
		synchro_sql_run("UPDATE synchro.former_contact SET moved = true WHERE server = $1::name", 1, &type, &value, NULL);
}

/*
 * What is noted of a remote, in the current memory context; NULL: nothing.
 * Needs a transaction.
 */
SynchroFormerContact *
synchro_former_read(const char *server)
{
	MemoryContext context = CurrentMemoryContext;
	SynchroFormerContact *former = NULL;
	SynchroSqlScope scope;
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(server);

	if (!synchro_former_is_noted())
		return NULL;
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (synchro_sql_run("SELECT node, acknowledged, attempted, coalesce(sent_before, '0'), moved FROM synchro.former_contact WHERE server = $1::name",
						1, &type, &value, NULL) == 1)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;

		former = palloc0(sizeof(SynchroFormerContact));
		former->node = SPI_getvalue(row, desc, 1);
		former->acknowledged = SPI_getvalue(row, desc, 2);
		former->attempted = SPI_getvalue(row, desc, 3);
		former->sent_before = U64FromFullTransactionId(DatumGetFullTransactionId(SPI_getbinval(row, desc, 4, &isnull)));
		former->moved = DatumGetBool(SPI_getbinval(row, desc, 5, &isnull));
		MemoryContextSwitchTo(old);
	}
	synchro_sql_close(&scope);
	return former;
}

/*
 * The remote has been met: forget how it was left.  In a scope of the
 * extension's owner.
 */
void
synchro_former_forget(const char *server)
{
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(server);

	if (synchro_former_is_noted())
		synchro_sql_run("DELETE FROM synchro.former_contact WHERE server = $1::name", 1, &type, &value, NULL);
}
