/*-------------------------------------------------------------------------
 *
 * contact.c
 *	  Meeting a remote: which position it has, and what becomes of a batch
 *	  whose end is not known.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "checkpoint.h"
#include "formercontact.h"
#include "known.h"
#include "localsql.h"
#include "preview.h"
#include "previewsql.h"
#include "restored.h"

static void
make_peer_tables(SynchroLink *link)
{
	StringInfoData sql;
	SynchroRemoteError *error;

	initStringInfo(&sql);
	appendStringInfoString(&sql, link->preview != NULL ? SYNCHRO_PREVIEW_BEGIN : "BEGIN;");
	synchro_peer_tables(&sql, false);
	if (link->preview != NULL)
		synchro_sql_preview_end(&sql, true);
	else
		appendStringInfoString(&sql, "COMMIT;");
	error = synchro_remote_script(link->remote, sql.data, NIL, NULL);
	if (error == NULL)
		return;
	if (strcmp(error->sqlstate, "42501") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("remote \"%s\" has no schema \"%s\", and its user may not create it",
						link->target->name, SYNCHRO_PEER_SCHEMA),
				 errdetail("The remote said: %s.", error->message),
				 errhint("Have an administrator of the remote run there the SQL that synchro.peer_setup() returns.")));
	synchro_remote_report(link->remote, error, "while creating schema \"" SYNCHRO_PEER_SCHEMA "\"");
}

/*
 * Note what the remote shows after an attempt whose end is not known: the token
 * attempted, or the one put in its place.  Without that, the next attempt's
 * token would be the only one that we know.
 *
 * snapshot, keys_snapshot: those of the batch, if it got there, else NULL.  They
 * are kept, for there may be nothing to push now, and the next pass goes by what
 * is kept.  What was to be forgotten there is: were it forgotten once more, rows
 * would be new to the remote that the batch has just made there.  And what was
 * to be settled with it is.  How the remote was left before does not matter any
 * more.
 */
static void
acknowledge_attempted(const char *server, const char *attempted, const char *token,
					  const char *snapshot, const char *keys_snapshot)
{
	MemoryContext context = CurrentMemoryContext;
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[lengthof(types)];
	bool		nulls[lengthof(types)] = {0};
	bool		batch = snapshot != NULL;

	synchro_local_begin("synchro: keeping the position");
	values[0] = CStringGetTextDatum(server);
	values[1] = CStringGetTextDatum(attempted);
	values[2] = CStringGetTextDatum(token);
	nulls[3] = nulls[4] = !batch;
	values[3] = batch ? CStringGetTextDatum(snapshot) : (Datum) 0;
	values[4] = batch ? CStringGetTextDatum(keys_snapshot) : (Datum) 0;
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run(psprintf("UPDATE synchro.remote_state SET acknowledged = $3::uuid, attempted = $3::uuid,"
							 " snapshot = coalesce($4::pg_snapshot, snapshot), keys_snapshot = coalesce($5::pg_snapshot, keys_snapshot),"
							 " forget_references = forget_references AND $4 IS NULL%s"
							 " WHERE server = $1::name AND attempted = $2::uuid",
							 synchro_former_is_noted() ? ", forget_deletes = false" : ""),
					lengthof(types), types, values, nulls);
	if (SPI_processed == 1)
		synchro_former_forget(server);
	synchro_sql_close(&scope);
	if (batch)
		synchro_position_settle(server, attempted);
	synchro_local_commit();
	MemoryContextSwitchTo(context);
}

static SynchroRows *
look_up_position(const SynchroLink *link, const char *node)
{
	const char *params[1] = {node};

	return synchro_remote_query(link->remote,
								"SELECT token, snapshot, keys_snapshot, date_trunc('second', moved_at) FROM "
								SYNCHRO_PEER_SCHEMA ".position WHERE node = $1 FOR UPDATE", 1, params);
}

/*
 * The token that calls off an attempt: the attempt's own, which is random, as a
 * UUID of another version.  So it need not be kept anywhere.
 */
static char *
calling_off(const char *attempted)
{
	char	   *token = pstrdup(attempted);

	token[14] = '5';
	return token;
}

static bool
is_called_off(const char *token, const char *attempted)
{
	return attempted != NULL && synchro_position_same(token, calling_off(attempted));
}

/*
 * A node's position on the remote, so that nothing that was sent before can
 * move it any more; NULL if there is none.  acknowledged, attempted: the tokens
 * that we know.
 *
 * A batch of our predecessor's may still be under way, though nobody waits for
 * its answer any more.  If it has begun there, and waits for a lock, say, its
 * fence has locked the row: let it end.  If it has not, it is still in the
 * network, and would set a token that our own next attempt makes us forget: we
 * would take the remote for another one.  So where the remote shows the token
 * that this batch expects, that is exchanged for one which calls it off.  That
 * one follows from the attempted token, so a crash before it is noted here, or
 * a lost answer, leaves three tokens that can be there, and we know them all.
 */
static SynchroRows *
settle_position(const SynchroLink *link, const char *node, const char *acknowledged, const char *attempted)
{
	const char *params[3] = {node, acknowledged};

	for (;;)
	{
		SynchroRows *rows = look_up_position(link, node);

		if (rows->nrows != 1)
			return NULL;
		if (link->preview != NULL || attempted == NULL || synchro_position_same(attempted, acknowledged) ||
			!synchro_position_same(synchro_value(rows, 0, 0), acknowledged))
			return rows;

		/* if it has got there since, it is found out in the next round */
		params[2] = calling_off(attempted);
		synchro_remote_query(link->remote, "UPDATE " SYNCHRO_PEER_SCHEMA ".position SET token = $3"
							 " WHERE node = $1 AND token = $2", 3, params);
	}
}

/*
 * A batch with that token has arrived: what it was to settle is settled.
 */
static void
settle_arrived(const SynchroLink *link, const char *token)
{
	MemoryContext context = CurrentMemoryContext;

	synchro_local_begin("synchro: noting what has failed");
	synchro_position_settle(link->target->name, token);
	synchro_local_commit();
	MemoryContextSwitchTo(context);
}

/*
 * The last batch's end is not known, and set_checkpoint() has made us forget its
 * token: if it got there, what it was to settle is settled.
 */
static void
settle_forgotten(const SynchroLink *link)
{
	SynchroRows *rows = look_up_position(link, link->node);

	if (rows->nrows == 1)
		settle_arrived(link, synchro_value(rows, 0, 0));
}

/*
 * The same of a batch that was sent as another node, before confirm_node(): it
 * may be under way still, and is to end or to be called off, before it is said
 * what the remote has from us.  If it has arrived, position goes on from there,
 * unless that was moved by hand since, and what was to be forgotten is; arrived
 * is set.  Returns whether nobody else has pushed as that node.
 */
static bool
settle_former(const SynchroLink *link, const SynchroFormerContact *former, SynchroPosition *position, bool *arrived)
{
	SynchroRows *rows = settle_position(link, former->node, former->acknowledged, former->attempted);
	const char *token = rows != NULL ? synchro_value(rows, 0, 0) : NULL;

	if (synchro_position_same(token, former->acknowledged) || is_called_off(token, former->attempted))
		return true;
	if (!synchro_position_same(token, former->attempted))
		return false;
	*arrived = true;
	if (link->preview == NULL)
		settle_arrived(link, former->attempted);
	if (former->moved)
		return true;
	position->snapshot = synchro_value(rows, 0, 1);
	position->keys_snapshot = synchro_value(rows, 0, 2);
	position->forget_references = false;
	if (link->preview == NULL)
		synchro_position_correct(link->target->name, position);
	return true;
}

/*
 * What is known of how the remote was left, or NULL.  Not in a local
 * transaction.
 */
static SynchroFormerContact *
former_contact(const SynchroLink *link)
{
	MemoryContext context = CurrentMemoryContext;
	SynchroFormerContact *former;

	synchro_local_begin("synchro: looking how the remote was left");
	MemoryContextSwitchTo(context);
	former = synchro_former_read(link->target->name);
	synchro_local_commit();
	MemoryContextSwitchTo(context);
	return former;
}

/*
 * Take over the remote's position: at the first contact, or after reset().
 * Done again if a crash came before it was acknowledged: no batch has been
 * sent by then.  Once the remote has been told the position, it is not asked for
 * that of the former node any more: what there is to be learned from that is
 * kept before (synchro_position_correct()).
 */
static void
take_position(SynchroLink *link, SynchroPosition *position)
{
	const char *params[4];
	char	   *token = synchro_position_token();
	SynchroFormerContact *former = former_contact(link);
	const char *previous = former != NULL ? former->node : link->previous_node;
	bool		anew = previous != NULL && strcmp(previous, link->node) != 0 && synchro_restored_is_new(link);
	bool		arrived = false;
	bool		ours = false;	/* all that the former node has there */

	if (anew && former != NULL && former->acknowledged != NULL)
		ours = settle_former(link, former, position, &arrived);
	if (anew && !arrived && !position->rebased)
		synchro_restored_set_back(link, previous, position);
	if (anew)
		synchro_restored_inherit(link, previous, position->keys_snapshot, former != NULL ? former->sent_before : 0, ours);
	if (link->preview == NULL)
	{
		settle_forgotten(link);
		synchro_position_attempt(link->target->name, position->attempted, token, NULL, NULL);
	}
	position->attempted = token;
	params[0] = link->node;
	params[1] = token;
	params[2] = position->snapshot;
	params[3] = position->keys_snapshot;
	synchro_remote_query(link->remote,
						 "INSERT INTO " SYNCHRO_PEER_SCHEMA ".position (node, token, snapshot, keys_snapshot)"
						 " VALUES ($1, $2, $3, $4) ON CONFLICT (node) DO UPDATE SET token = EXCLUDED.token,"
						 " snapshot = EXCLUDED.snapshot, keys_snapshot = EXCLUDED.keys_snapshot,"
						 " moved_at = pg_catalog.clock_timestamp()", 4, params);
	position->acknowledged = position->attempted;

	/* now that no batch of before can put any there, nor carry them out: rows may be here again by the names of theirs */
	if (position->forget_deletes)
		synchro_remote_query(link->remote, "DELETE FROM " SYNCHRO_PEER_SCHEMA ".unapplied WHERE node = $1", 1, params);
	if (link->preview == NULL)
		acknowledge_attempted(link->target->name, position->attempted, position->attempted, NULL, NULL);
}

/*
 * Keep which node the remote is, if it is one.
 */
static void
note_node(const SynchroLink *link)
{
	MemoryContext context = CurrentMemoryContext;
	SynchroSqlScope scope;
	Oid			types[] = {TEXTOID, UUIDOID};
	Datum		values[lengthof(types)];
	bool		nulls[] = {false, link->peer_node == NULL};

	synchro_local_begin("synchro: noting the remote's id");
	values[0] = CStringGetTextDatum(link->target->name);
	values[1] = nulls[1] ? (Datum) 0 : UUIDPGetDatum(link->peer_node);
	synchro_sql_open(&scope, SYNCHRO_AS_OWNER);
	synchro_sql_run("UPDATE synchro.remote_state SET node = $2 WHERE server = $1::name AND node IS DISTINCT FROM $2",
					lengthof(types), types, values, nulls);
	synchro_sql_close(&scope);
	synchro_local_commit();
	MemoryContextSwitchTo(context);
}

/*
 * Meet the remote: make our tables there where they are missing, and compare
 * positions.  For a preview, in its transaction, and nothing is noted here.  On return, position says what counts.
 *
 * A remote that shows a position which is neither the last acknowledged nor
 * the last attempted, nor what calls that off, is not the one that we brought
 * there, or we are not the node that did: an error, nothing is pushed.
 */
void
synchro_peer_open(SynchroLink *link, SynchroPosition *position)
{
	SynchroRows *rows;
	const char *token;
	bool		arrived;		/* the batch attempted, and we had not heard it */

	link->peer = SYNCHRO_PEER_SCHEMA;
	if (link->preview == NULL)
		note_node(link);

	/* nothing takes less: what else is asked takes the server's time, too, see synchro_remote_is_near(); but not so much */
	for (int i = 0; i < 2 && !synchro_remote_is_far(link->remote); i++)
		(void) synchro_remote_query(link->remote, "SELECT", 0, NULL);
	rows = synchro_remote_query(link->remote,
								"SELECT to_regclass('" SYNCHRO_PEER_SCHEMA ".position') IS NOT NULL,"
								" EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = to_regclass('" SYNCHRO_PEER_SCHEMA ".known_table') AND a.attname = 'own_key')",
								0, NULL);
	link->knows_tables = synchro_value(rows, 0, 0)[0] != 't' || synchro_value(rows, 0, 1)[0] == 't';
	if (synchro_value(rows, 0, 0)[0] != 't')
		make_peer_tables(link);
	if (position->acknowledged == NULL)
		take_position(link, position);

	rows = settle_position(link, link->node, position->acknowledged, position->attempted);
	token = rows != NULL ? synchro_value(rows, 0, 0) : NULL;
	if (!synchro_position_same(token, position->acknowledged) && !synchro_position_same(token, position->attempted) &&
		!is_called_off(token, position->attempted))
		synchro_restored_report(link, position->snapshot, position->keys_snapshot,
								token != NULL ? synchro_value(rows, 0, 1) : NULL,
								token != NULL ? synchro_value(rows, 0, 2) : NULL,
								token != NULL ? synchro_value(rows, 0, 3) : NULL);
	arrived = !synchro_position_same(token, position->acknowledged) && synchro_position_same(token, position->attempted);
	if (arrived)
		position->forget_references = false;
	if (link->preview == NULL && !synchro_position_same(token, position->acknowledged))
	{
		acknowledge_attempted(link->target->name, position->attempted, token,
							  arrived ? synchro_value(rows, 0, 1) : NULL, arrived ? synchro_value(rows, 0, 2) : NULL);
		position->attempted = pstrdup(token);
	}
	position->acknowledged = pstrdup(token);
	position->snapshot = synchro_value(rows, 0, 1);
	position->keys_snapshot = synchro_value(rows, 0, 2);
	synchro_link_forget_leftovers(link);
	if (link->knows_tables)
		synchro_known_load(link);
	if (!position->forget_references)
		synchro_peer_find_leftovers(link);
}

/*
 * Note the tables with deletes that wait on the remote.  Not in a local
 * transaction.
 */
void
synchro_peer_find_leftovers(SynchroLink *link)
{
	const char *params[1] = {link->node};
	MemoryContext old = CurrentMemoryContext;
	SynchroRows *rows = synchro_remote_query(link->remote, "SELECT DISTINCT relation FROM "
											 SYNCHRO_PEER_SCHEMA ".unapplied WHERE node = $1", 1, params);

	synchro_link_forget_leftovers(link);
	if (rows->nrows == 0)
		return;
	synchro_local_begin("synchro: looking at deletes that wait");
	for (int i = 0; i < rows->nrows; i++)
		synchro_link_add_leftover(link, synchro_known_name(link, synchro_value(rows, i, 0)));
	synchro_local_commit();
	MemoryContextSwitchTo(old);
}
