/*-------------------------------------------------------------------------
 *
 * ddlevent.c
 *	  Event triggers that keep registry, triggers and remotes in line with
 *	  DDL: partitions made or attached, foreign keys that come and go, what is
 *	  renamed (ddlrename.c), tables and servers dropped, servers and user
 *	  mappings made; and with GRANT on our views.
 *
 * They run for DDL of any user, so they first look, without SQL, whether it
 * concerns us, and nearly always return at once.  What there is to do is done
 * as the owner of the extension in a subtransaction: if it fails, the user's
 * DDL goes through and he is warned.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/event_trigger.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "copyqueue.h"
#include "ddlrename.h"
#include "localsql.h"
#include "registryrow.h"
#include "stalled.h"
#include "synchro.h"
#include "tableinfo.h"
#include "target.h"
#include "viewgrants.h"
#include "unwatched.h"
#include "tabletrigger.h"
#include "watchtrigger.h"

PG_FUNCTION_INFO_V1(synchro_ddl_command_start);
PG_FUNCTION_INFO_V1(synchro_ddl_command_end);
PG_FUNCTION_INFO_V1(synchro_sql_drop);

/* what we do runs DDL itself, which need not concern us again */
static bool busy = false;

/*
 * Is there nothing to do whatever the command: within our own install and
 * upgrade scripts, within our own DDL, and when the extension is going?
 */
static bool
must_keep_out(void)
{
	Oid			extension;

	if (busy || synchro_watchtrigger_renewing())
		return true;
	extension = get_extension_oid(SYNCHRO_EXTENSION, true);
	return !OidIsValid(extension) ||
		(creating_extension && CurrentExtensionObject == extension);
}

/*
 * Is a dump being restored?  It makes our triggers itself, in an order of its
 * own, and pg_dump and pg_restore turn this setting off all along.  So does whatever
 * else has been made from what pg_dump writes.
 */
static bool
restoring(void)
{
	return !check_function_bodies;
}

/*
 * Errors that are not ours to turn into warnings: the user's cancellation,
 * and those that the transaction must be repeated for.
 */
static bool
must_pass_on(int sqlstate)
{
	return sqlstate == ERRCODE_QUERY_CANCELED ||
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_TRANSACTION_ROLLBACK;
}

/*
 * Run an action in a subtransaction; its failure becomes a warning.
 */
static void
run_guarded(void (*action) (Node *statement), Node *statement, CommandTag tag)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	busy = true;
	PG_TRY();
	{
		action(statement);
		ReleaseCurrentSubTransaction();
		busy = false;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		busy = false;
		error = synchro_undo_subtransaction(context, owner);
		if (must_pass_on(error->sqlerrcode))
			ReThrowError(error);
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("synchro could not follow %s: %s", GetCommandTagName(tag), error->message),
				 error->detail ? errdetail("%s", error->detail) : 0,
				 errhint("Correct the cause, then call synchro.alter_table for a watched table: that renews all triggers.")));
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

/*
 * The table of ours of which CREATE TABLE made a partition, or InvalidOid.
 */
static Oid
parent_of_new_partition(CreateStmt *create)
{
	Oid			parent;

	if (create->partbound == NULL)
		return InvalidOid;
	parent = RangeVarGetRelid(linitial(create->inhRelations), NoLock, true);
	return OidIsValid(parent) && synchro_tabletrigger_present(parent) ? parent : InvalidOid;
}

static void
after_create_partition(Node *statement)
{
	CreateStmt *create = (CreateStmt *) statement;
	Oid			parent = parent_of_new_partition(create);
	Oid			partition = RangeVarGetRelid(create->relation, NoLock, true);

	/* a name without schema may mean another table by now: then look at all */
	if (OidIsValid(partition) && get_rel_relispartition(partition) &&
		get_partition_parent(partition, true) == parent)
		synchro_watchtrigger_renew_partitions(partition);
	else
		synchro_watchtrigger_renew_partitions(parent);
}

/*
 * Can a subcommand bring a foreign key into a key?
 */
static bool
may_add_foreign_key(AlterTableCmd *command)
{
	return command->subtype == AT_AddConstraint ||
		command->subtype == AT_AddColumn ||
		command->subtype == AT_AddIndexConstraint;
}

/*
 * Does it switch all triggers of a table on or off?  That is what a restore of
 * data does with --disable-triggers, and no other restore.
 */
static bool
switches_all_triggers(const AlterTableStmt *alter)
{
	ListCell   *cell;

	foreach(cell, alter->cmds)
	{
		switch (((AlterTableCmd *) lfirst(cell))->subtype)
		{
			case AT_EnableTrigAll:
			case AT_EnableTrigUser:
			case AT_DisableTrigAll:
			case AT_DisableTrigUser:
				return true;
			default:
				break;
		}
	}
	return false;
}

/*
 * Watched tables that a table's changes matter to: itself, first, and those in
 * whose natural key it stands.
 */
static List *
watched_by_way_of(Oid relid)
{
	List	   *concerned = NIL;
	ListCell   *cell;

	foreach(cell, synchro_registry_watched())
	{
		Oid			watched = lfirst_oid(cell);

		if (watched == relid)
			concerned = lcons_oid(watched, concerned);
		else if (list_member_oid(synchro_table_with_names(list_make1_oid(watched)), relid))
			concerned = lappend_oid(concerned, watched);
	}
	return concerned;
}

/*
 * If changes of a table, or of a partition of one, are not captured any more,
 * say so, and have nothing pushed that they matter to.
 */
static void
check_captured(Oid relid)
{
	const SynchroTable *table = OidIsValid(relid) ? synchro_table_get(relid, true) : NULL;
	Oid			root;
	bool		captured;
	char	   *name;
	char	   *root_name;
	ListCell   *cell;

	if (table == NULL)
		return;
	captured = synchro_table_captured(table);
	name = pstrdup(table->qualified);
	root = synchro_table_covering(relid);
	if (root != relid)
	{
		/* what is known of the root's partitions */
		CacheInvalidateRelcacheByRelid(root);
		table = synchro_table_get(root, true);
	}
	if (captured || table == NULL)
		return;
	root_name = pstrdup(table->qualified);
	foreach(cell, watched_by_way_of(root))
	{
		char	   *watched = pstrdup(synchro_table_get(lfirst_oid(cell), false)->qualified);

		if (foreach_current_index(cell) == 0)
			ereport(WARNING,
					(errcode(ERRCODE_WARNING),
					 errmsg(SYNCHRO_NOT_CAPTURED, name),
					 errhint(SYNCHRO_CAPTURE_HINT, quote_literal_cstr(watched))));
		synchro_stalled_uncaptured(lfirst_oid(cell), root_name, watched);
	}
}

static bool
is_our_trigger(const char *name)
{
	return strcmp(name, SYNCHRO_ROW_TRIGGER) == 0 || strcmp(name, SYNCHRO_TRUNCATE_TRIGGER) == 0;
}

static void
after_drop_trigger(Node *statement)
{
	ListCell   *cell;

	foreach(cell, ((DropStmt *) statement)->objects)
	{
		List	   *names = lfirst(cell);

		if (list_length(names) > 1 && is_our_trigger(strVal(llast(names))))
			check_captured(RangeVarGetRelid(makeRangeVarFromNameList(list_copy_head(names, list_length(names) - 1)),
											NoLock, true));
	}
}

/*
 * The table that a command attaches, detaches, or makes a partition in some other way;
 * InvalidOid if it is no such command, or the table is not there.
 */
static Oid
partition_of(const AlterTableCmd *command)
{
	RangeVar   *name = command->def != NULL && IsA(command->def, PartitionCmd) ? ((PartitionCmd *) command->def)->name : NULL;

	return name != NULL ? RangeVarGetRelid(name, NoLock, true) : InvalidOid;
}

static bool
attaches_partition(const AlterTableStmt *alter)
{
	ListCell   *cell;

	foreach(cell, alter->cmds)
		if (((AlterTableCmd *) lfirst(cell))->subtype == AT_AttachPartition)
			return true;
	return false;
}

/*
 * ATTACH PARTITION in what seems to be a restore: a trigger of ours that the dump goes on
 * to make would clash with one that we make, so it is only said what is missing.
 */
static void
after_attach_restored(Node *statement)
{
	check_captured(RangeVarGetRelid(((AlterTableStmt *) statement)->relation, NoLock, true));
}

static void
after_alter_table(Node *statement)
{
	AlterTableStmt *alter = (AlterTableStmt *) statement;
	Oid			relid = RangeVarGetRelid(alter->relation, NoLock, true);
	bool		keys_changed = false;
	ListCell   *cell;

	foreach(cell, alter->cmds)
	{
		AlterTableCmd *command = lfirst(cell);
		Oid			partition = partition_of(command);

		keys_changed |= may_add_foreign_key(command);
		if (command->def == NULL || !IsA(command->def, PartitionCmd))
			continue;
		if (OidIsValid(partition))
		{
			synchro_watchtrigger_renew_partitions(partition);
			synchro_table_forget_referring(partition);
		}
		synchro_watchtrigger_renew_partitions(relid);
	}
	if (switches_all_triggers(alter))
		synchro_tabletrigger_fire_always(relid);
	check_captured(relid);
	if (keys_changed)
		synchro_watchtrigger_renew(list_make1_oid(synchro_table_covering(relid)), false, InvalidOid);
}

static bool
alter_table_concerns_us(AlterTableStmt *alter)
{
	Oid			relid = RangeVarGetRelid(alter->relation, NoLock, true);
	ListCell   *cell;

	if (!OidIsValid(relid))
		return false;
	if (synchro_tabletrigger_present(relid))
		return true;
	foreach(cell, alter->cmds)
	{
		Oid			partition = partition_of(lfirst(cell));

		if (OidIsValid(partition) && (synchro_tabletrigger_present(partition) || synchro_table_is_registered(partition)))
			return true;
	}
	return false;
}

static void
after_create_server(Node *statement)
{
	synchro_target_adopt(((CreateForeignServerStmt *) statement)->servername);
}

static void
after_create_user_mapping(Node *statement)
{
	synchro_target_adopt(((CreateUserMappingStmt *) statement)->servername);
}

static void
before_revoke(Node *statement)
{
	synchro_viewgrants_begin((GrantStmt *) statement);
}

static void
after_grant(Node *statement)
{
	synchro_viewgrants_follow((GrantStmt *) statement);
}

static EventTriggerData *
event_data(FunctionCallInfo fcinfo)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("not called by event trigger manager")));
	return (EventTriggerData *) fcinfo->context;
}

static void
after_ddl(Node *statement, CommandTag tag)
{
	ListCell   *cell;

	switch (nodeTag(statement))
	{
		case T_CreateSchemaStmt:
			foreach(cell, ((CreateSchemaStmt *) statement)->schemaElts)
				after_ddl(lfirst(cell), tag);
			break;
		case T_CreateStmt:
			/* no dump makes a partition so: it attaches them */
			if (OidIsValid(parent_of_new_partition((CreateStmt *) statement)))
				run_guarded(after_create_partition, statement, tag);
			break;
		case T_AlterTableStmt:
			if (!alter_table_concerns_us((AlterTableStmt *) statement))
				break;
			if (!restoring() || switches_all_triggers((AlterTableStmt *) statement))
				run_guarded(after_alter_table, statement, tag);
			else if (attaches_partition((AlterTableStmt *) statement))
				run_guarded(after_attach_restored, statement, tag);
			break;
		case T_DropStmt:
			if (!restoring() && ((DropStmt *) statement)->removeType == OBJECT_TRIGGER)
				run_guarded(after_drop_trigger, statement, tag);
			break;
		case T_RenameStmt:
		case T_AlterObjectSchemaStmt:
			if (synchro_ddlrename_concerns(statement))
				run_guarded(synchro_ddlrename_follow, statement, tag);
			break;
		case T_GrantStmt:
			if (!restoring() && synchro_viewgrants_concern((GrantStmt *) statement))
				run_guarded(after_grant, statement, tag);
			break;
		case T_CreateForeignServerStmt:
			run_guarded(after_create_server, statement, tag);
			break;
		case T_CreateUserMappingStmt:
			run_guarded(after_create_user_mapping, statement, tag);
			break;
		default:
			break;
	}
}

/*
 * Event trigger at ddl_command_start, of REVOKE and ALTER TABLE.
 */
Datum
synchro_ddl_command_start(PG_FUNCTION_ARGS)
{
	EventTriggerData *data = event_data(fcinfo);

	if (IsA(data->parsetree, AlterObjectSchemaStmt))
		synchro_ddlrename_begin((AlterObjectSchemaStmt *) data->parsetree);
	if (!must_keep_out() && !restoring() && IsA(data->parsetree, GrantStmt) &&
		!((GrantStmt *) data->parsetree)->is_grant && synchro_viewgrants_concern((GrantStmt *) data->parsetree))
		run_guarded(before_revoke, data->parsetree, data->tag);
	PG_RETURN_NULL();
}

/*
 * Event trigger at ddl_command_end.
 */
Datum
synchro_ddl_command_end(PG_FUNCTION_ARGS)
{
	EventTriggerData *data = event_data(fcinfo);

	if (!must_keep_out())
		after_ddl(data->parsetree, data->tag);
	PG_RETURN_NULL();
}

static void
forget_tables(Node *statement)
{
	synchro_registry_note_dropped();
	synchro_registry_forget_dangling();
	synchro_copyqueue_forget_unwatched();

	/* what only those have had in their keys */
	synchro_watchtrigger_forget_in_key();
	CommandCounterIncrement();
	synchro_unwatched_forget();
}

static void
forget_remotes(Node *statement)
{
	synchro_target_forget_dangling();
}

/*
 * Warn of a natural key that lost a column, and of a primary key that is gone
 * where there is no other key.  A natural key is not made shorter: that would
 * match other rows.
 */
static void
warn_of_lost_key(Oid relid)
{
	const SynchroTable *table;
	char	   *column = synchro_registry_lost_key_column(relid);

	if (column != NULL)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("natural key of table \"%s\" has lost its column \"%s\"",
						get_rel_name(relid), column),
				 errdetail("Nothing is pushed from the table, nor from those that refer to it, until it has another key."),
				 errhint("Name one with synchro.register_natural_key, "
						 "or do without it by synchro.unregister_natural_key.")));
	table = column == NULL ? synchro_table_get(relid, true) : NULL;
	if (table != NULL && table->lost_key)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("table \"%s\" has lost its primary key", table->name),
				 errdetail("Changes are not logged, and nothing is pushed from the table until it has a key."),
				 errhint("Add a primary key, or name another key with synchro.register_natural_key.")));
}

/*
 * The same for each table that ALTER TABLE, or ALTER TYPE of a composite type, is about.
 */
static void
warn_of_lost_keys(Node *statement)
{
	AlterTableStmt *alter = (AlterTableStmt *) statement;
	Oid			relid = IsA(statement, AlterTableStmt) ? RangeVarGetRelid(alter->relation, NoLock, true) : InvalidOid;
	ListCell   *cell;

	if (!OidIsValid(relid))
		return;
	warn_of_lost_key(relid);
	if (alter->objtype == OBJECT_TYPE)
		foreach(cell, synchro_ddlrename_typed_tables(get_rel_type_id(relid)))
			warn_of_lost_key(lfirst_oid(cell));
}

/*
 * Does ALTER TABLE, or ALTER TYPE, drop a column of a name that the registry has?  It may
 * make another one of that name, too, and then nothing is missing.
 */
static bool
drops_registered_column(Node *statement)
{
	ListCell   *cell;

	if (!IsA(statement, AlterTableStmt))
		return false;
	foreach(cell, ((AlterTableStmt *) statement)->cmds)
	{
		AlterTableCmd *command = lfirst(cell);

		if (command->subtype == AT_DropColumn && synchro_registry_names_column(InvalidOid, command->name))
			return true;
	}
	return false;
}

/*
 * Event trigger at sql_drop.  It asks what is gone rather than what was
 * dropped, so it also makes up for drops that it did not see.
 */
Datum
synchro_sql_drop(PG_FUNCTION_ARGS)
{
	EventTriggerData *data = event_data(fcinfo);

	if (must_keep_out())
		PG_RETURN_NULL();
	if (synchro_target_has_dangling())
		run_guarded(forget_remotes, data->parsetree, data->tag);
	if (synchro_registry_has_dangling() || drops_registered_column(data->parsetree))
		run_guarded(forget_tables, data->parsetree, data->tag);
	warn_of_lost_keys(data->parsetree);
	PG_RETURN_NULL();
}
