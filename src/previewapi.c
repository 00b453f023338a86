/*-------------------------------------------------------------------------
 *
 * previewapi.c
 *	  SQL-callable function that shows what the next pass would do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "capturebuffer.h"
#include "pushcall.h"
#include "tableinfo.h"

PG_FUNCTION_INFO_V1(synchro_preview);

/* rows on their way to the result */
typedef struct Shower
{
	ReturnSetInfo *rsinfo;
	MemoryContext context;
	Datum		remote;
	List	   *readable;		/* oids of tables whose rows the caller may see */
	List	   *hidden;			/* and of those that he may not */
	int64		nhidden;
} Shower;

/*
 * Keys and values of rows are for those who may read them, and what a row is
 * called contains what those are called that it references.
 */
static bool
may_read(Oid relid, List **seen)
{
	const SynchroTable *table;

	if (list_member_oid(*seen, relid))
		return true;
	*seen = lappend_oid(*seen, relid);
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK ||
		check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED)
		return false;
	table = synchro_table_get(relid, true);
	if (table == NULL)
		return false;
	table = synchro_table_copy(table, CurrentMemoryContext);
	for (int fk = 0; fk < table->nfks; fk++)
		if (!may_read(table->fks[fk].parent, seen))
			return false;
	return true;
}

static bool
is_visible(Shower *shower, Oid relid)
{
	MemoryContext old;
	List	   *seen = NIL;
	bool		visible;

	if (list_member_oid(shower->readable, relid))
		return true;
	if (list_member_oid(shower->hidden, relid))
		return false;
	visible = SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)) && may_read(relid, &seen);
	old = MemoryContextSwitchTo(shower->context);
	if (visible)
		shower->readable = lappend_oid(shower->readable, relid);
	else
		shower->hidden = lappend_oid(shower->hidden, relid);
	MemoryContextSwitchTo(old);
	return visible;
}

static void
show_row(const SynchroPreviewRow *row, void *arg)
{
	Shower	   *shower = arg;
	Datum		values[5] = {0};
	bool		nulls[5] = {0};

	if (!is_visible(shower, row->relid))
	{
		shower->nhidden++;
		return;
	}
	values[0] = shower->remote;
	values[1] = ObjectIdGetDatum(row->relid);
	nulls[2] = row->key == NULL;
	if (!nulls[2])
		values[2] = CStringGetTextDatum(row->key);
	values[3] = CStringGetTextDatum(row->action);
	nulls[4] = row->detail == NULL;
	if (!nulls[4])
		values[4] = CStringGetTextDatum(row->detail);
	tuplestore_putvalues(shower->rsinfo->setResult, shower->rsinfo->setDesc, values, nulls);
}

static void
tell_hidden(const Shower *shower)
{
	ListCell   *cell;
	StringInfoData names;

	if (shower->nhidden == 0)
		return;
	initStringInfo(&names);
	foreach(cell, shower->hidden)
	{
		const char *name = get_rel_name(lfirst_oid(cell));

		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", name != NULL ? quote_identifier(name) : "?");
	}
	ereport(NOTICE,
			(errmsg("rows are not shown that you may not read: %lld", (long long) shower->nhidden),
			 errdetail("Tables: %s.", names.data),
			 errhint("To see them you need SELECT on these tables and on those that they reference.")));
}

/*
 * preview(remote): what the next pass would do, row by row.
 */
Datum
synchro_preview(PG_FUNCTION_ARGS)
{
	Shower		shower = {(ReturnSetInfo *) fcinfo->resultinfo, CurrentMemoryContext};
	List	   *targets;
	ListCell   *cell;
	SynchroKeptError error;
	int			failed = 0;

	PreventCommandDuringRecovery("preview()");
	InitMaterializedSRF(fcinfo, 0);
	targets = synchro_pushcall_targets(PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0)));
	if (synchro_buffer_pending())
		ereport(NOTICE,
				(errmsg("changes of this transaction are not committed yet, so they are not shown"),
				 errhint("Commit before you call %s.", "preview()")));
	foreach(cell, targets)
	{
		SynchroTarget *target = lfirst(cell);

		shower.remote = DirectFunctionCall1(namein, CStringGetDatum(target->name));
		if (synchro_pushcall_preview(target, show_row, &shower, &error))
			continue;

		/* one remote that cannot be reached does not hide the others */
		if (++failed == list_length(targets))
			synchro_pushcall_report(&error);
		synchro_pushcall_censor(&error);
		ereport(WARNING,
				(errcode(error.sqlerrcode),
				 errmsg("could not look at remote \"%s\"", target->name),
				 errdetail("%s", error.message),
				 errhint("All of the error: SELECT * FROM synchro.preview(%s);", quote_literal_cstr(target->name))));
	}
	tell_hidden(&shower);
	return (Datum) 0;
}
