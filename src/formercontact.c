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
 * The last is told by when the row of remote_state was written.  Whatever was
 * sent before that had been read before, so its snapshot ends with an id that
 * is not above the writer's.  The row was written before the copy was made,
 * since nobody who is held or refused by a remote writes it but to have it
 * noted here first; so what the other one has sent since ends above it.
 *
 * Version 1.0 has no such table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "formercontact.h"
#include "localsql.h"
#include "sequence.h"

static bool
is_there(void)
{
	return OidIsValid(synchro_own_relation("former_contact", true));
}

/*
 * Note how a remote is left, before its tokens are taken away; NULL: all of
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

	if (!is_there())
		return;

	/* of two identities this database's is the newer, see confirm_node() */
	synchro_sql_run("INSERT INTO synchro.former_contact (server, node, acknowledged, attempted, sent_before)"
					" SELECT r.server, i.id, s.acknowledged, s.attempted, pg_current_xact_id()::text::bigint - age(s.xmin)"
					" FROM synchro.remote r LEFT JOIN synchro.remote_state s ON s.server = r.server"
					" CROSS JOIN (SELECT o.id FROM synchro.node_identity o, pg_control_system() c, pg_database d WHERE d.datname = current_database()"
					"  ORDER BY o.system_identifier = c.system_identifier AND o.database = d.oid LIMIT 1) i"
					" WHERE (s.server IS NULL OR s.acknowledged IS NOT NULL) AND ($1 IS NULL OR r.server = $1::name)"
					" ON CONFLICT (server) DO NOTHING",
					1, &type, &value, &isnull);
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

	if (!is_there())
		return NULL;
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	if (synchro_sql_run("SELECT node, acknowledged, attempted, greatest(sent_before, 0) FROM synchro.former_contact WHERE server = $1::name",
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
		former->sent_before = (uint64) DatumGetInt64(SPI_getbinval(row, desc, 4, &isnull));
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

	if (is_there())
		synchro_sql_run("DELETE FROM synchro.former_contact WHERE server = $1::name", 1, &type, &value, NULL);
}
