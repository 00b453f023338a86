/*-------------------------------------------------------------------------
 *
 * parkingreason.c
 *	  Why rows are parked, as failures show it: what the remote has said, of which
 *	  column and which other row, and what mends it.  (header: passwork.h)
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "applysql.h"
#include "localsql.h"
#include "passwork.h"
#include "requests.h"

/*
 * A key as messages show it: without the braces of the array.
 */
static char *
shown_key(const SynchroNamedRow *row)
{
	return pnstrdup(row->key + 1, strlen(row->key) - 2);
}

/*
 * The table of a value that its type on the remote has refused when a row, or the
 * name of one, was staged; NULL: it is another error.  column: its number, or -1
 * where that is not said.
 */
static const SynchroLinkTable *
refused_value(SynchroPass *pass, const SynchroRemoteError *error, int *column)
{
	const char *copy = error->context != NULL ? strstr(error->context, "COPY s_") : NULL;
	int			number;

	*column = -1;
	if (copy == NULL && error->context != NULL)
		copy = strstr(error->context, "COPY n_");
	if (copy == NULL || sscanf(copy + strlen("COPY s_"), "%d, line %*u, column c%d", &number, column) < 1)
		return NULL;
	return synchro_link_numbered(pass->link, number, true);
}

/*
 * If the remote's type of a column has refused a value, name the column: its
 * own message says only what was wrong with the value.
 */
static void
describe_column(const SynchroLinkTable *lt, int column, SynchroFailure *failure)
{
	if (failure->detail != NULL || lt == NULL || lt->remote == NULL ||
		column < 0 || column >= lt->table->ncolumns || lt->remote->columns[column].type == NULL)
		return;
	failure->detail = psprintf("It is the value of column \"%s\" of table %s, which is of type %s on the remote.",
							   lt->table->columns[column].name, lt->table->qualified, lt->remote->columns[column].type);
	failure->hint = "Correct the value here, or make the column's type there the same as here.";
}

/*
 * If a domain has refused the value, it is that of the only column of it that is pushed.
 */
static void
find_of_domain(SynchroPass *pass, const SynchroRemoteError *error, const SynchroFailure *failure,
			   const SynchroLinkTable **lt, int *column)
{
	const char *domain;
	ListCell   *cell;

	if (*lt != NULL || error->here || error->schema == NULL || error->datatype == NULL)
		return;
	domain = quote_qualified_identifier(error->schema, error->datatype);
	foreach(cell, pass->link->tables)
	{
		SynchroLinkTable *other = lfirst(cell);

		if (other->table->relid != failure->table->relid || other->remote == NULL)
			continue;
		for (int i = 0; i < other->table->ncolumns; i++)
		{
			const char *type = other->remote->columns[i].type;

			if (type == NULL || !other->pushed[i] || strcmp(type, domain) != 0)
				continue;
			*column = *lt == NULL ? i : -1;
			*lt = other;
		}
	}
}

/*
 * Does a foreign key reference all that the parent's key consists of?
 */
static bool
references_key(const SynchroForeignKey *fk, const SynchroTable *parent)
{
	for (int x = 0; x < parent->nidentity; x++)
	{
		bool		found = false;

		for (int i = 0; i < fk->ncols; i++)
			found = found || fk->refcols[i] == parent->columns[parent->identity[x]].attnum;
		if (!found)
			return false;
	}
	return true;
}

/*
 * May the key of a row that is to blame be shown with the one that has failed?
 * Whoever may read the latter's table is shown the reason, so that must say no more
 * of rows of other tables than this row says itself: the key if that is what it
 * refers to them by.  By which foreign key is not known, if there are several.
 */
static bool
tells_key(const SynchroFailure *failure, const SynchroTable *other)
{
	const SynchroTable *table = failure->table;
	bool		tells = false;

	if (table->relid == other->relid)
		return true;

	/* it is another row that refers to that one */
	if (failure->shared)
		return false;
	for (int i = 0; i < table->nfks; i++)
	{
		if (table->fks[i].parent != other->relid)
			continue;
		if (!references_key(&table->fks[i], other))
			return false;
		tells = true;
	}
	return tells;
}

/*
 * Say of which parent a row has failed.
 */
static void
describe_missing(SynchroPass *pass, const SynchroNamedRow *parent, SynchroFailure *failure)
{
	const SynchroTable *table = parent->lt->table;
	const char *key = tells_key(failure, table) ? psprintf(" with key %s", shown_key(parent)) : "";

	failure->sqlstate = "23503";
	failure->detail = NULL;
	failure->message = psprintf(synchro_parked_find_text(pass->parked, table, parent->key) != NULL ?
								"row of table %s%s, which it references, could not be applied either" :
								"row of table %s%s, which it references, does not exist",
								table->qualified, key);
}

/*
 * Say of which row the remote has several.
 */
static void
describe_ambiguous(const SynchroNamedRow *row, SynchroFailure *failure)
{
	const char *table = row->lt->table->qualified;

	failure->sqlstate = "21000";
	failure->message = psprintf("natural key of a row of table %s matches several rows on the remote", table);
	failure->detail = tells_key(failure, row->lt->table) ? psprintf("The row's key here is %s.", shown_key(row)) : NULL;
	failure->hint = psprintf("Remove the surplus rows and make a unique index there, or allow many: SELECT synchro.alter_table(%s, allow_many => true).",
							 quote_literal_cstr(table));
}

/*
 * Does the error say that it is about this table?
 */
static bool
names_table(const SynchroRemoteError *error, const SynchroTable *table)
{
	return error->schema != NULL && strcmp(error->schema, table->schema) == 0 &&
		error->table != NULL && strcmp(error->table, table->name) == 0;
}

/*
 * The same of a row that could not be read on this side.
 */
static bool
describe_unreadable(const SynchroRemoteError *error, SynchroFailure *failure)
{
	if (names_table(error, failure->table))
		return false;
	failure->message = psprintf("row of table %s, which it needs, could not be read on this side",
								quote_qualified_identifier(error->schema, error->table));
	failure->detail = NULL;
	return true;
}

/*
 * If what the remote has refused is a row of another table, which was pushed along
 * or named with this one, say of which table, and not what was said of that row.
 * Returns whether that is so.  value, column: what refused_value() says.
 */
static bool
describe_needed(SynchroPass *pass, const SynchroRemoteError *error, const SynchroLinkTable *value, int column,
				SynchroFailure *failure)
{
	const SynchroLinkTable *needed = value;
	ListCell   *cell;

	if (error->here)
		return describe_unreadable(error, failure);
	foreach(cell, pass->link->tables)
	{
		SynchroLinkTable *lt = lfirst(cell);

		if (needed == NULL && failure->op != SYNCHRO_OP_DELETE && list_member_oid(pass->ensured, lt->table->relid) &&
			names_table(error, lt->table))
			needed = lt;
	}
	if (needed == NULL || needed->table->relid == failure->table->relid)
		return false;
	failure->message = psprintf("row of table %s, which it needs, is refused by the remote", needed->table->qualified);
	failure->detail = NULL;
	failure->hint = NULL;
	if (value != NULL)
		describe_column(value, column, failure);
	return true;
}

/*
 * If a constraint of the row's own table there has refused it, say how that is
 * mended: the remote's message says only what is wrong.  Nothing is said of
 * tables that the remote's own triggers write, nor of a partition.
 */
static void
describe_violation(const SynchroRemoteError *error, SynchroFailure *failure)
{
	const SynchroTable *table = failure->table;
	bool		pushed = false;

	if (failure->hint != NULL || error->schema == NULL || error->table == NULL)
		return;

	/* the table that refers to it is named */
	if ((strcmp(error->sqlstate, "23503") == 0 || strcmp(error->sqlstate, "23001") == 0) && failure->op == SYNCHRO_OP_DELETE)
		failure->hint = SYNCHRO_STILL_REFERENCED;
	if (!names_table(error, table))
		return;
	if (strcmp(error->sqlstate, "23502") == 0)
	{
		for (int i = 0; i < table->ncolumns && error->column != NULL; i++)
			pushed = pushed || (strcmp(table->columns[i].name, error->column) == 0 && !table->columns[i].skipped && !table->columns[i].generated);
		failure->hint = pushed ? "Give the column a value here, or drop its NOT NULL there." :
			"No value is pushed for the column: give it a default there, or drop its NOT NULL.";
	}
	else if (strcmp(error->sqlstate, "23503") == 0 && failure->op != SYNCHRO_OP_DELETE)
		failure->hint = "Make the row there that it references, or watch that table, too.";
	else if (strcmp(error->sqlstate, "23505") == 0 && table->mode == SYNCHRO_MODE_REFERENCE)
		failure->hint = psprintf("If that row there is the same one, say by what: SELECT synchro.%s(%s, %s'{...}').",
								 table->watched ? "alter_table" : "register_natural_key", quote_literal_cstr(table->qualified),
								 table->watched ? "natural_key => " : "");
	else if (strcmp(error->sqlstate, "23505") == 0 || strcmp(error->sqlstate, "23P01") == 0)
		failure->hint = "A row there is in its way: change that one, or this one here.";
	else if (strcmp(error->sqlstate, "23514") == 0)
		failure->hint = error->constraint != NULL ? "Correct the row here, or the constraint there." : "Make a partition for it there.";
}

/*
 * The first row that an error names, by its key here, or NULL.  Needs a transaction.
 */
static SynchroNamedRow *
first_named(SynchroPass *pass, const SynchroRemoteError *error, const char *sqlstate)
{
	List	   *rows = synchro_quarantine_named(pass->link, error, sqlstate);
	SynchroNamedRow *row = rows != NIL ? linitial(rows) : NULL;

	if (row != NULL)
		row->key = synchro_unstaged_text(row->lt->table, row->key);
	return row;
}

/*
 * Say in a failure what the remote said.  Needs a transaction.
 */
void
synchro_parking_describe(SynchroPass *pass, const SynchroRemoteError *error, SynchroFailure *failure)
{
	const SynchroNamedRow *parent = first_named(pass, error, SYNCHRO_MISSING_PARENTS);
	const SynchroNamedRow *several = first_named(pass, error, SYNCHRO_AMBIGUOUS_KEY);
	int			column;
	const SynchroLinkTable *value = refused_value(pass, error, &column);

	failure->sqlstate = error->sqlstate;
	failure->message = error->message;
	failure->detail = error->detail;
	failure->hint = error->hint;
	failure->constraint = error->constraint != NULL && error->constraint[0] != '\0' ? error->constraint : NULL;
	if (parent != NULL)
		describe_missing(pass, parent, failure);
	else if (several != NULL)
		describe_ambiguous(several, failure);
	else if (!describe_needed(pass, error, value, column, failure))
	{
		find_of_domain(pass, error, failure, &value, &column);
		describe_column(value, column, failure);
		describe_violation(error, failure);
	}
}

static bool
refers_to(const SynchroTable *table, Oid parent)
{
	for (int i = 0; i < table->nfks; i++)
		if (table->fks[i].parent == parent)
			return true;
	return false;
}

/*
 * Is an error about a row of that table, as far as it can be told?
 *
 * Of a table's constraints the remote says whose they are, and of a staged value
 * the COPY.  Any other error may be about what the batch has of other tables.
 */
static bool
is_about_table(SynchroPass *pass, const SynchroBatch *batch, const SynchroTable *table, const SynchroRemoteError *error)
{
	const SynchroLinkTable *lt;
	List	   *named;
	int			column;

	/* what a row refers to is in the row */
	named = synchro_quarantine_named(pass->link, error, SYNCHRO_MISSING_PARENTS);
	if (named != NIL)
		return refers_to(table, ((SynchroNamedRow *) linitial(named))->lt->table->relid);
	named = synchro_quarantine_named(pass->link, error, SYNCHRO_AMBIGUOUS_KEY);
	if (named != NIL)
		return ((SynchroNamedRow *) linitial(named))->lt->table->relid == table->relid;
	if (error->table != NULL && error->table[0] != '\0')
		return names_table(error, table);
	lt = refused_value(pass, error, &column);
	return lt != NULL ? lt->table->relid == table->relid : batch->ensured == NIL;
}

/*
 * The error that rows of a table are parked with which were not tried one by
 * one.  Whoever may read that table is shown it, so it says nothing of rows of
 * others.  In the current memory context.
 */
SynchroRemoteError *
synchro_parking_shared(SynchroPass *pass, const SynchroBatch *batch, Oid relid, SynchroRemoteError *error)
{
	MemoryContext context = CurrentMemoryContext;
	const SynchroTable *table;
	SynchroRemoteError *shared;
	bool		own;

	synchro_local_begin("synchro: looking at what has failed");
	table = synchro_table_get(relid, true);
	own = table == NULL || is_about_table(pass, batch, table, error);
	synchro_local_commit();
	MemoryContextSwitchTo(context);
	if (own)
		return error;
	shared = palloc0(sizeof(SynchroRemoteError));

	/* ours are said with what they name, see describe() */
	strlcpy(shared->sqlstate, strcmp(error->sqlstate, SYNCHRO_AMBIGUOUS_KEY) == 0 ? "21000" :
			strcmp(error->sqlstate, SYNCHRO_MISSING_PARENTS) == 0 ? "23503" : error->sqlstate, sizeof(shared->sqlstate));
	shared->message = pstrdup("it was in a batch that failed because of a row of another table");
	shared->hint = pstrdup("So much had failed that rows were not tried one by one. Mend what is shown for other rows, and run synchro.retry().");
	return shared;
}
